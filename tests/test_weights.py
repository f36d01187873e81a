"""Weights of whoever made them: damage is told in one way, and what does not fit is known before a network takes memory."""

import io
import json
import math
import os
import pickle
import zipfile

import pytest
import torch
from fuzz_targets import make_snapshot
from safetensors.torch import save_file
from tiny_models import tiny_checkpoint, unsealed

from ddpm_bench import files
from ddpm_bench.errors import NotFinite, UserError
from ddpm_bench.models import model
from ddpm_bench.models.model import load_model, save_model
from ddpm_bench.models.model_card import ModelCard
from ddpm_bench.networks.weights import mismatch, not_finite, odd, read_pickle, read_tensors


def safetensors(header: dict, data: bytes = bytes(16)) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


ONE = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff" * 64, safetensors({"a": ONE | {"dtype": "F4", "shape": [32]}}), safetensors({"a": ONE | {"shape": [2**62, 4]}}),
        safetensors({"a": ONE | {"shape": [0, 2**63], "data_offsets": [0, 0]}}, b""), safetensors({"a": ONE}, b""),
    ],
)  # fmt: skip
def test_damaged_tensors_are_a_value_error(tmp_path, content) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    for source in (content, tmp_path / "x.safetensors"):
        try:
            held = read_tensors(source)
        except ValueError:
            continue
        assert held["a"].dtype == torch.float4_e2m1fn_x2 and source != content  # torch has it, though not from bytes


def test_a_pipe_is_no_file_of_tensors(tmp_path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    for read in (read_tensors, read_pickle):
        with pytest.raises(OSError, match="no regular file"):
            read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK\5\6" + bytes(18), b"\x80\x02}", pickled({"a": torch.ones(3)})[:-30]])
def test_a_damaged_pickle_is_a_value_error_or_none_of_tensors(content) -> None:
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        read_pickle(content)


def test_a_packed_bomb_is_refused_before_it_unfolds(monkeypatch) -> None:
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(pickled({"a": torch.zeros(2**20)}))) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    monkeypatch.setattr(files, "SMALL", 2**20)
    with pytest.raises(UserError, match=r"claims to hold 4,19"):
        read_pickle(packed.getvalue())


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({3: torch.ones(1)}, "a name is a int"), ({"a": [1]}, "'a' is a list"), ({"a": torch.ones(1).to_sparse()}, "sparse"),
        ({"a": torch.ones(1).cfloat()}, "complex64"), ({"a": torch.ones(1).expand(2**40)}, "views of the same numbers"),
        ({"a": torch.ones(9), "b": torch.ones(9).half(), "c": torch.ones(9)[:3]}, None),
    ],
)  # fmt: skip
def test_what_is_no_weight_is_named(tensors: dict, said: str | None) -> None:
    assert odd(tensors) == [] if said is None else said in odd(tensors)[0]
    shared = torch.ones(9)
    assert odd({"a": shared, "b": shared}) == ["some are views of the same numbers, repeated"]


def test_the_first_difference_of_weights_is_named() -> None:
    network = torch.nn.Linear(3, 2, device="meta")
    fitting = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    assert mismatch(network, fitting) is None
    assert mismatch(network, {"bias": fitting["bias"]}) == "weight is missing"
    assert mismatch(network, fitting | {"x": fitting["bias"]}) == "x is not expected"
    assert mismatch(network, fitting | {"bias": torch.ones(3)}) == "bias is float32 [3] where float32 [2] is expected"
    assert (
        mismatch(network, fitting | {"bias": torch.ones(2).int()}) == "bias is int32 [2] where float32 [2] is expected"
    )


def edited(tmp_path, section: str, **changes: object):
    """A checkpoint whose card says something else than its weights."""
    folder = tiny_checkpoint(tmp_path / "tiny")
    card = json.loads((folder / "model.json").read_text())
    (card[section] if section else card).update(changes)
    (folder / "model.json").write_text(json.dumps(card))
    return folder


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        ("network", {"base": 2**31}, "network.base"), ("network", {"blocks": 10**9}, "network.blocks"),
        ("network", {"eps": float("inf")}, "Infinity is no JSON"), ("network", {"multipliers": [10**30]}, "network.multipliers"),
        ("network", {"multipliers": []}, "a positive number a level"), ("", {"shape": [1, 0, 0]}, "square"),
        ("", {"shape": [1, 16, 32]}, "square"), ("", {"shape": [1, 2**30, 2**30]}, "square"), ("", {"shape": [4, 16, 16]}, "C is 1 or 3"),
    ],
)  # fmt: skip
def test_a_card_of_absurd_sizes_is_refused(tmp_path, section: str, changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_model(edited(tmp_path, section, **changes))


def test_a_network_that_its_weights_do_not_fill_is_never_given_memory(tmp_path, monkeypatch) -> None:
    folder, built = edited(tmp_path, "network", base=8192, groups=2), []
    monkeypatch.setattr(model, "build_network", lambda *given: built.append(build(*given)) or built[-1])
    with pytest.raises(UserError, match=r"tiny' do not fit what it says of their network: .* is expected"):
        load_model(folder)
    assert len(built) == 1 and all(weight.is_meta for weight in built[0].parameters())


build = model.build_network


def test_a_card_that_is_nested_without_end_is_refused(tmp_path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    (folder / "model.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"is not a model card.*nested too deeply"):
        load_model(folder)


def test_a_flipped_bit_in_imported_weights_is_found_by_the_hash_in_their_card(tmp_path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(UserError, match="its hash has changed"):
        load_model(folder)
    path.write_bytes(content)
    card = json.loads((folder / "model.json").read_text())
    del card["weights_sha256"]  # as older versions wrote it
    (folder / "model.json").write_text(json.dumps(card))
    load_model(folder)


def test_values_that_are_not_finite_are_counted_by_tensor() -> None:
    whole = {"a": torch.ones(3), "b": torch.zeros(2, dtype=torch.int64), "c": torch.ones(2, device="meta")}
    assert not_finite(whole) is None
    faulty = {"a": torch.ones(3), "b": torch.tensor([1.0, math.nan, math.inf]), "c": torch.tensor([-math.inf])}
    assert not_finite(faulty) == (
        "b has 2 of 3 values that are not finite (NaN or infinity), and 1 more tensors have such"
    )
    assert not_finite({"b": faulty["b"].half()}) == "b has 2 of 3 values that are not finite (NaN or infinity)"


def test_an_imported_checkpoint_that_is_not_finite_is_refused_at_load(tmp_path) -> None:
    card = ModelCard.model_validate_json((tiny_checkpoint(tmp_path / "whole") / "model.json").read_text())
    state = read_tensors(tmp_path / "whole" / "weights.safetensors")
    state["last.bias"][0] = math.nan
    save_model(tmp_path / "faulty", card, state)
    with pytest.raises(NotFinite, match=r"last.bias has 1 of 1 values that are not finite .*Take an earlier"):
        load_model(tmp_path / "faulty")


@pytest.mark.parametrize("raw", [False, True])
def test_a_trained_checkpoint_that_is_not_finite_is_refused_at_load_but_not_its_other_weights(tmp_path, raw) -> None:
    make_snapshot(tmp_path)
    snapshot = tmp_path / "run" / "step-000007"
    path = snapshot / ("network.safetensors" if raw else "ema.safetensors")
    weights = read_tensors(path)
    save_file(weights | {"last.bias": torch.full_like(weights["last.bias"], math.inf)}, path)
    unsealed(snapshot)  # its hashes would tell of the change first
    assert load_model(tmp_path / "run", raw=not raw).step == 7
    with pytest.raises(NotFinite, match=r"last.bias has 1 of 1 values that are not finite"):
        load_model(tmp_path / "run", raw=raw)
