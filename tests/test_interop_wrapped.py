"""Which network of a file is taken, and what is known and refused by its name."""

import json
import math
from pathlib import Path

import pytest
import torch
from openai_layout import layout
from safetensors.torch import load_file
from test_interop_openai import FLAGS, SMALL, command

from ddpm_bench.errors import UserError
from ddpm_bench.models.interop import UserSays, import_checkpoint

OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}


def imported(folder: Path, content: object, name: str = "weights.pt", **asked):
    torch.save(content, folder / name)
    return import_checkpoint(str(folder / name), folder / "out", UserSays(flags=FLAGS, **asked))


def average_and_raw() -> tuple[dict, dict]:
    average = layout(**SMALL)
    return average, {name: tensor + 1 for name, tensor in average.items()}


@pytest.mark.parametrize(
    ("wrap", "asked", "kind", "step", "remark"),
    [
        (lambda ema, raw: {"state_dict": ema}, {}, "unknown", None, "'state_dict' is taken"),
        (lambda ema, raw: {"ema_model": ema}, {}, "ema", None, "'ema_model' is taken"),
        (lambda ema, raw: {"model": raw, "ema": ema, "step": 7}, {}, "ema", 7, "'ema' is taken; passed over: model"),
        (lambda ema, raw: {"model": raw, "ema": ema, "opt": OPTIMIZER}, {"raw": True}, "raw", None, "passed over: ema, opt"),
        (lambda ema, raw: {"model": raw, "model_ema": ema}, {"key": "model_ema"}, "ema", None, "'model_ema' is taken"),
        (lambda ema, raw: {"a": ema, "b": raw}, {"key": "a"}, "unknown", None, "'a' is taken; passed over: b"),
        (lambda ema, raw: {f"module.{name}": each for name, each in ema.items()}, {}, "unknown", None, "'module.' is taken off"),
        (lambda ema, raw: {"ema": {f"module._orig_mod.{name}": each for name, each in ema.items()}}, {}, "ema", None,
         "'module._orig_mod.' is taken off"),
    ],
)  # fmt: skip
def test_what_a_script_saved_around_a_network_is_unwrapped_and_said(tmp_path, wrap, asked, kind, step, remark) -> None:
    average, raw = average_and_raw()
    card = imported(tmp_path, wrap(average, raw), **asked)
    assert (card.weights, card.step) == (kind, step) and any(remark in each for each in card.remarks)
    held = load_file(tmp_path / "out" / "weights.safetensors")["first.bias"]
    assert torch.equal(held, (raw if kind == "raw" else average)["input_blocks.0.0.bias"])


@pytest.mark.parametrize(
    ("wrap", "asked", "said"),
    [
        (lambda ema, raw: {"model": raw, "net": ema}, {}, "holds several networks, 'model', 'net'; give --key"),
        (
            lambda ema, raw: {"ema_0.999": ema, "ema_0.9999": raw},
            {},
            "several networks, 'ema_0.999', 'ema_0.9999'; give --key",
        ),
        (lambda ema, raw: {"a": raw, "b": raw, "ema": ema}, {"raw": True}, "several networks, 'a', 'b'; give --key"),
        (lambda ema, raw: {"model": raw, "ema": [3]}, {}, "'model' of .* raw, not EMA; give --raw"),
        (lambda ema, raw: {"model": raw}, {"key": "ema"}, "--key ema: in .* 'model' holds such a network"),
        (lambda ema, raw: raw, {"key": "ema"}, "--key ema: in .* no entry holds"),
        (lambda ema, raw: raw | {"ema": ema}, {}, "'ema' is a dict"),
        (lambda ema, raw: {"ema": ema}, {"raw": True}, "'ema' of .* says EMA; leave --raw out"),
        (lambda ema, raw: {"module.x": torch.ones(1)} | ema, {}, "module.x is not expected"),
    ],
)
def test_of_several_networks_none_is_guessed(tmp_path: Path, wrap, asked: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        imported(tmp_path, wrap(*average_and_raw()), **asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"optimizer": OPTIMIZER, "model": {"module.all_modules.0.weight": torch.ones(2)}, "step": 3,
             "ema": {"decay": 0.999, "num_updates": 3, "shadow_params": [torch.ones(2)]}},
            "yang-song/score_sde_pytorch: .*attend once a level.*list without names.*evaluate --samples",
        ),
        (
            {"step": 3, "opt": OPTIMIZER, "scaler": None, "version": "1.0", "ema": {"initted": torch.ones(1)},
             "model": {"model.downs.0.0.block1.proj.weight": torch.ones(2), "model.mid_block1.mlp.1.bias": torch.ones(2)}},
            "lucidrains/denoising-diffusion-pytorch: its attention is linear",
        ),
        ({"state_dict": {"model.diffusion_model.time_embed.0.weight": torch.ones(2)}}, "latent diffusion: .* codes"),
        ({"time_embedding.linear_1.weight": torch.ones(2)}, "weights of a diffusers model.*give the folder"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("format", [None, "openai"])
def test_others_are_refused_by_their_name_with_the_reason(tmp_path: Path, content, said: str, format) -> None:
    torch.save(content, tmp_path / "model-3.pt")
    with pytest.raises(UserError, match=said):
        import_checkpoint(str(tmp_path / "model-3.pt"), tmp_path / "out", UserSays(), format)


def test_of_a_training_folder_or_its_optimizer_the_file_to_take_is_named(tmp_path: Path) -> None:
    for name in ("model100.pt", "ema_0.9999_000100.pt", "model200.pt", "ema_0.9999_000200.pt", "ema_0.999_000200.pt"):
        (tmp_path / name).touch()
    torch.save(OPTIMIZER, tmp_path / "opt200.pt")
    which = r"give 'ema_0.9999_000200.pt', or 'ema_0.999_000200.pt', or 'model200.pt' \(raw weights\) with --raw"
    for given, said in (("opt200.pt", "state of an optimizer"), ("", "is a folder of checkpoints")):
        with pytest.raises(UserError, match=f"{said}.*{which}"):
            import_checkpoint(str(tmp_path / given), tmp_path / "out", UserSays(flags=FLAGS))
    alone = tmp_path / "alone"
    alone.mkdir()
    torch.save(OPTIMIZER, alone / "opt200.pt")
    with pytest.raises(UserError, match="give the file of the network's weights"):
        import_checkpoint(str(alone / "opt200.pt"), tmp_path / "out", UserSays(flags=FLAGS))


def test_the_command_prints_what_was_taken_and_exits_with_2_where_it_would_have_to_guess(tmp_path: Path) -> None:
    average, raw = average_and_raw()
    torch.save({"model": raw, "ema": average}, tmp_path / "a.pt")
    done = command(tmp_path / "a.pt", "--out", tmp_path / "out", "--flags", FLAGS)
    assert done.exit_code == 0 and "the file's entry 'ema' is taken; passed over: model" in done.stdout
    torch.save({"model": raw, "net": average}, tmp_path / "b.pt")
    refused = command(tmp_path / "b.pt", "--out", tmp_path / "two", "--flags", FLAGS)
    assert isinstance(refused.exception, UserError)  # which the command line turns into a message and exit code 2
    chosen = command(tmp_path / "b.pt", "--out", tmp_path / "two", "--flags", FLAGS, "--key", "net")
    assert chosen.exit_code == 0, chosen.output


@pytest.mark.parametrize(
    ("dtype", "said"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16"), (torch.float64, "float64")]
)
def test_weights_of_another_precision_are_said_to_be(tmp_path: Path, dtype: torch.dtype, said: str) -> None:
    card = imported(tmp_path, {name: tensor.to(dtype) for name, tensor in layout(**SMALL).items()})
    assert card.remarks == (f"weights are stored as {said}, and computed with as float32",)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_name_and_count(tmp_path: Path, value: float) -> None:
    state = layout(**SMALL)
    state["out.0.bias"][:3], state["out.2.bias"][0] = value, value
    said = r"out.0.bias has 3 of 32 values that are not finite \(NaN or infinity\), and 1 more tensors"
    with pytest.raises(UserError, match=said):
        imported(tmp_path, state)
    assert not (tmp_path / "out").exists()


def test_what_is_refused_exits_with_2_and_one_message(tmp_path: Path, call) -> None:
    state = layout(**SMALL)
    state["out.0.bias"][0] = math.nan
    pipeline = {"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"], "unet": ["diffusers", "UNet2DModel"]}
    (tmp_path / "latent" / "unet").mkdir(parents=True)
    (tmp_path / "latent" / "unet" / "config.json").write_text("{}")
    (tmp_path / "latent" / "model_index.json").write_text(json.dumps(pipeline))
    torch.save(state, tmp_path / "nan.pt")
    torch.save({"model": layout(**SMALL), "net": layout(**SMALL)}, tmp_path / "two.pt")
    torch.save(OPTIMIZER, tmp_path / "opt3.pt")
    for given, said in (
        ("nan.pt", "out.0.bias has 1 of 32 values that are not finite"), ("two.pt", "holds several networks, 'model', 'net'"),
        ("opt3.pt", "is the state of an optimizer"), ("latent", "of a 'LDMPipeline' with vqvae (VQModel)"),
        ("latent/unet", "of a 'LDMPipeline' with vqvae (VQModel)"),
    ):  # fmt: skip
        flags = ("--flags", FLAGS) if given.endswith("pt") else ()
        answer = call("import", tmp_path / given, "--out", tmp_path / "out", *flags)
        assert (answer.code, answer.out) == (2, "") and said in answer.err and "Traceback" not in answer.err
        assert not (tmp_path / "out").exists()


def test_a_number_too_large_for_float32_is_not_finite_either(tmp_path: Path) -> None:
    state = {name: tensor.double() for name, tensor in layout(**SMALL).items()}
    state["out.0.bias"][0] = 1e300
    with pytest.raises(UserError, match=r"out.0.bias has 1 of 32 values"):
        imported(tmp_path, state)
