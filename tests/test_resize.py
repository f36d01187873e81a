"""Images at another size: refused unless asked for, by whichever command, and told where it was done."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_fidelity import projection
from tiny_models import tiny_checkpoint, tiny_data, tiny_preset, unsealed

from ddpm_bench.config.settings import DataSettings, completed
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data import fitted, load_data
from ddpm_bench.data.images import BLOCK
from ddpm_bench.data.resize import WAYS
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.ablate import check_results, plan
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.models.model import load_model
from ddpm_bench.models.reference import reference_data
from ddpm_bench.records.record import Record, read_record
from ddpm_bench.report.sections.provenance import FACTS
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.snapshots import check_identity


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def average(images: torch.Tensor, size: int) -> torch.Tensor:
    return fitted(images, (size, size), "average")[0]


# The ways.


@pytest.mark.parametrize("asked", [None, *WAYS])
def test_images_of_the_size_are_left_alone_and_nothing_is_told(asked):
    images = _random(2, 3, 8, 12)
    assert fitted(images, (8, 12), asked) == (images, "")


def test_28_to_32_is_padded_by_two_unasked_and_told():
    images = _random(3, 1, 28, 28)
    padded, done = fitted(images, (32, 32))
    assert done == "resized from 28x28 to 32x32 pixels by pad"
    assert torch.equal(padded[:, :, 2:30, 2:30], images)
    assert padded.sum(dtype=torch.int64) == images.sum(dtype=torch.int64)


@pytest.mark.parametrize(
    ("shape", "to", "said"),
    [
        (
            (28, 28),
            (16, 16),
            "28x28 pixels, and 16x16 are wanted.*--resize average or --resize bicubic.*bring them to one size",
        ),
        ((8, 8), (16, 16), "8x8 pixels, and 16x16.*--resize pad or --resize bicubic"),
        ((30, 40), (32, 32), "of 40x30 pixels, and 32x32.*What a model is trained on is square"),
        ((32, 32), (28, 28), "32x32 pixels, and 28x28"),
        ((28, 28), (36, 36), "28x28 pixels, and 36x36"),
        ((35, 35), (16, 16), "Ask for it with --resize bicubic-antialias"),
        ((4, 4), (16, 16), "or bring them to one size beforehand"),
    ],
)
def test_another_size_unasked_is_refused_with_both_sizes_and_what_would_do(shape, to, said):
    with pytest.raises(UserError, match=said):
        fitted(_random(1, 1, *shape), to)


def test_pad_centres_and_an_odd_one_more_goes_to_the_bottom_and_right():
    images = _random(2, 1, 9, 12)
    padded, _ = fitted(images, (12, 15), "pad")
    assert torch.equal(padded[:, :, 1:10, 1:13], images)
    assert padded.sum(dtype=torch.int64) == images.sum(dtype=torch.int64)
    with pytest.raises(UserError, match=r"12x9 pixels cannot be padded to 15x8.*--resize average"):
        fitted(images, (8, 15), "pad")


def test_28_to_16_averages_two_by_two_and_pads_one():
    images = _random(3, 1, 28, 28)
    mean = images.double().reshape(3, 1, 14, 2, 14, 2).mean(dim=(3, 5))
    made = average(images, 16)
    assert torch.equal(made[:, :, 1:15, 1:15], torch.floor(mean + 0.5).to(torch.uint8))
    assert not made[:, :, [0, 15]].any() and not made[:, :, :, [0, 15]].any()


def test_means_are_rounded_half_up():
    quads = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1], [255, 255, 255, 255], [254, 255, 254, 255]])
    blocks = quads.to(torch.uint8).reshape(5, 1, 2, 2)
    assert average(blocks, 1).flatten().tolist() == [0, 1, 1, 255, 255]


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([1, 3]), size=st.integers(8, 32))
def test_averaging_agrees_with_plain_loops_for_any_size(height, width, channels, size):
    images = _random(2, channels, height, width)
    factor = next(f for f in range(1, 100) if -(-max(height, width) // f) <= size)
    if (height, width) == (size, size):
        return
    if factor == 1 and (height, width, size) != (28, 28, 32):
        with pytest.raises(UserError, match="there is nothing to average"):
            average(images, size)
    if height % factor or width % factor:
        with pytest.raises(UserError, match="cannot be averaged"):
            average(images, size)
        return
    expected = np.zeros((2, channels, size, size), np.uint8)
    top, left = (size - height // factor) // 2, (size - width // factor) // 2
    for row in range(height // factor):
        for column in range(width // factor):
            block = images[:, :, row * factor : (row + 1) * factor, column * factor : (column + 1) * factor].double()
            expected[:, :, top + row, left + column] = np.floor(block.mean(dim=(2, 3)).numpy() + 0.5)
    assert np.array_equal(fitted(images, (size, size), "older")[0].numpy(), expected)
    if factor > 1:
        made, words = fitted(images, (size, size), "average")
        padded = (height // factor, width // factor) != (size, size)
        assert np.array_equal(made.numpy(), expected) and words.endswith(f"({factor}x{factor})" + ", then pad" * padded)


def test_a_size_that_does_not_divide_names_the_next_one_that_does():
    with pytest.raises(UserError, match=r"35x35 pixels.*averaged down to 16x16.*35 is the next"):
        average(_random(1, 1, 35, 35), 16)
    with pytest.raises(UserError, match=r"; 9 is the next"):
        average(_random(1, 1, 36, 36), 8)
    assert average(_random(1, 1, 36, 36), 9).shape[2:] == (9, 9)
    with pytest.raises(UserError, match=r"; 15 is the next"):
        fitted(_random(1, 1, 15, 15), (10, 40), "average")


def test_more_images_than_a_block_are_averaged_alike():
    images = _random(BLOCK + 3, 1, 2, 2)
    assert torch.equal(average(images, 1)[-3:], average(images[-3:], 1))


@pytest.mark.parametrize("to", [(16, 16), (40, 24)])
def test_bicubic_is_pillows_in_floats_on_each_channel_rounded_once(to):
    images = _random(2, 3, 32, 30)
    made, done = fitted(images, to, "bicubic-antialias")
    assert done == f"resized from 30x32 to {to[1]}x{to[0]} pixels by bicubic-antialias"
    for image, resized in zip(images.numpy(), made.numpy(), strict=True):
        for channel, levels in zip(image, resized, strict=True):
            exact = np.asarray(Image.fromarray(channel.astype(np.float32), "F").resize(to[::-1], Image.BICUBIC))
            assert np.abs(levels - exact.clip(0, 255)).max() <= 0.5


def test_bicubic_shrinks_without_aliasing():
    lines = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    lines[..., ::2] = 255
    made, _ = fitted(lines, (8, 8), "bicubic-antialias")
    assert made[..., 1:-1].float().std() < 4  # grey, not every fourth column


# Whose images they are.


def blobs(path, side: int, train: int = 40, test: int = 24, width: int | None = None) -> str:
    rng = np.random.default_rng(0)
    shape = (train + test, side, width or side)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    np.savez(path, train=images[:train], test=images[train:])
    return f"npz:{path}"


def test_a_data_set_tells_what_was_done_to_it(tmp_path):
    source = blobs(tmp_path / "d.npz", 8)
    with pytest.raises(UserError, match=r"Data source 'npz:.*d\.npz': The images are of 8x8 pixels, and 16x16"):
        load_data(DataSettings(source=source, size=16))
    data = load_data(DataSettings(source=source, size=16, resize="pad"))
    assert data.notes == ("The images of 'd' are resized from 8x8 to 16x16 pixels by pad",)
    assert load_data(DataSettings(source=source, size=8, resize="pad")).notes == ()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return tiny_checkpoint(folder / "tiny"), blobs(folder / "small.npz", 8), folder / "cache"


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_nll_refuses_images_of_another_size_and_tells_how_it_resized_them(call, tiny):
    ckpt, data, cache = tiny
    command = ("nll", "--ckpt", ckpt, "--data", data, "--evals", 5, "--images", 4, "--device", "cpu", "--cache", cache)
    refused = call(*command)
    assert refused.code == 2 and "of 8x8 pixels, and 16x16 are wanted" in one_line(refused.err)
    done = call(*command, "--resize", "pad", "--json")
    assert done.code == 0, done.err
    [note] = json.loads(done.out)["data"]["notes"]
    assert note.endswith("resized from 8x8 to 16x16 pixels by pad") and note in one_line(done.err)
    assert "8x8 to 16x16 pixels by pad" in one_line(call(*command, "--resize", "pad").out)


def test_a_row_refuses_images_of_another_size_and_tells_how_it_resized_them(call, tiny, tmp_path):
    ckpt, data, cache = tiny
    command = (
        "evaluate", "--ckpt", ckpt, "--data", data, "--count", 12, "--bound-images", 0, "--device", "cpu", "--cache", cache,
        "--results", tmp_path,
    )  # fmt: skip
    refused = call(*command)
    assert refused.code == 2 and "of 8x8 pixels, and 16x16 are wanted" in one_line(refused.err)
    assert call(*command, "--resize", "pad").code == 0
    said = "resized from 8x8 to 16x16 pixels by pad"
    assert said in (tmp_path / "table.md").read_text()
    assert said in json.loads((tmp_path / "tiny.json").read_text())["setup"]["data"]["notes"][0]
    other = call(*command, "--resize", "bicubic-antialias")
    assert (
        other.code == 2
        and "data.sha256: was" in other.err
        and "setup.data.notes" not in other.err
        and "by pad" in other.err
    )


def samples(path, side: int, width: int | None = None) -> str:
    images = np.random.default_rng(1).integers(0, 256, (24, side, width or side, 1), dtype=np.uint8)
    np.savez(path, images=images)
    return str(path)


def test_samples_are_never_resized_and_their_reference_only_when_asked(call, tiny, tmp_path):
    _, data, cache = tiny
    command = (
        "evaluate",
        "--samples",
        samples(tmp_path / "s.npz", 16),
        "--data",
        data,
        "--device",
        "cpu",
        "--cache",
        cache,
    )
    refused = call(*command)
    assert refused.code == 2 and "of 8x8 pixels, and 16x16 are wanted" in one_line(refused.err)
    done = call(*command, "--resize", "bicubic-antialias", "--json")
    assert done.code == 0, done.err
    assert "from 8x8 to 16x16 pixels by bicubic-antialias" in json.loads(done.out)["data"]["notes"][0]
    assert "by bicubic-antialias" in one_line(call(*command, "--resize", "bicubic-antialias").out)


class Pooled(torch.nn.Module):
    """Of images of any size, their means over 4x4 fields: an extractor that takes any."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.network(torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).to(torch.uint8))


def test_both_sides_of_a_score_may_be_other_than_square_where_the_extractor_takes_them(
    call, tiny, tmp_path, monkeypatch
):
    data = blobs(tmp_path / "d.npz", 16, width=24)
    command = (
        "evaluate", "--samples", samples(tmp_path / "s.npz", 16, width=24), "--data", data, "--device", "cpu",
        "--cache", tmp_path / "cache",
    )  # fmt: skip
    refused = call(*command)
    assert refused.code == 2 and "not for 24x16" in one_line(refused.err)
    refused = call(*command, "--data", tiny[1])
    assert refused.code == 2 and "of 8x8 pixels, and 24x16 are wanted" in one_line(refused.err)
    pooled = dataclasses.replace(projection(), sizes=None, network=Pooled(projection().network))
    monkeypatch.setattr("ddpm_bench.metrics.extractors.load_extractor", lambda *_, **__: pooled)
    done = call(*command, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["data"]["shape"] == [1, 16, 24]


def test_training_refuses_images_that_are_not_square_with_their_true_size(call, tmp_path):
    source = blobs(tmp_path / "d.npz", 16, width=24)
    done = call(
        "train", "--cell", "eps-mse-fixed", "--preset", tiny_preset(tmp_path), "--data", source, "--out", tmp_path / "out",
        "--set", "data.size=32", "--set", "network.attention=[]", "--device", "cpu",
    )  # fmt: skip
    assert done.code == 2 and "24x16 pixels, and 32x32 are wanted" in one_line(
        done.err
    )  # its preset asks for its own images
    done = call(
        "train", "--cell", "eps-mse-fixed", "--preset", tiny_preset(tmp_path), "--data", source, "--out", tmp_path / "out",
        "--set", "data.size=32", "--set", "network.attention=[]", "--device", "cpu", "--resize", "pad",
    )  # fmt: skip
    assert done.code == 0 and "24x16 to 32x32 pixels by pad" in one_line(done.err)
    preset = tiny_preset(tmp_path)
    done = call("train", "--cell", "eps-mse-fixed", "--preset", preset, "--data", source, "--out", tmp_path / "new")
    assert done.code == 2 and "of 24x16 pixels" in one_line(done.err) and "is square" in one_line(done.err)
    assert not (tmp_path / "new" / "step-000010").exists()


def test_an_end_of_an_interpolation_is_resized_when_that_is_asked_for(call, tiny, tmp_path):
    ckpt, data, _ = tiny
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    ends = ("sample", "--ckpt", ckpt, "--interpolate", tmp_path / "a.png", "1", "--at", 3, "--out", tmp_path / "o.png")
    command = (*ends, "--data", data, "--device", "cpu")
    refused = call(*command)
    assert refused.code == 2 and "of 8x8 pixels, and 16x16 are wanted" in one_line(refused.err)
    done = call(*command, "--resize", "pad", "--json")
    assert done.code == 0, done.err
    assert [note.partition(" resized ")[2] for note in json.loads(done.out)["notes"]] == [
        "from 8x8 to 16x16 pixels by pad"
    ] * 2
    for more, said in (
        (("--interpolate", "0", "1", "--resize", "pad"), "goes with --data or the path"),
        (("--interpolate", tmp_path / "a.png", tmp_path / "a.png", "--data", data), "paths alone are named"),
        (("--resize", "pad"), "--resize goes with --interpolate or --encode alone"),
    ):
        done = call("sample", "--ckpt", ckpt, "--out", tmp_path / "new.png", "--device", "cpu", *more)
        assert done.code == 2 and said in one_line(done.err), done.err


def test_an_extractor_is_trained_on_another_size_when_that_is_asked_for(call, tmp_path):
    command = (
        "extractor", "train", "--name", "mine", "--out", tmp_path / "x.safetensors", "--epochs", 1, "--sizes", "16",
        "--device", "cpu", "--data", labelled(tmp_path / "d.npz"),
    )  # fmt: skip
    refused = call(*command)
    assert refused.code == 2 and "of 8x8 pixels, and 16x16 are wanted" in one_line(refused.err)
    done = call(*command, "--resize", "pad", "--json")
    assert done.code == 0, done.err
    assert "from 8x8 to 16x16 pixels by pad" in json.loads(done.out)["data_notes"]["16"][0]


def labelled(path) -> str:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (24, 8, 8), dtype=np.uint8), np.arange(24) % 2
    np.savez(path, train=images, test=images, train_labels=labels, test_labels=labels)
    return f"npz:{path}"


# What was made before there was a setting.


def old(identity: dict) -> dict:
    return {**identity, "data": {key: value for key, value in identity["data"].items() if key != "resize"}}


def test_a_presets_own_resizing_is_for_its_own_images(tmp_path):
    grid, cell = load_grid("table2"), ["eps-mse-fixed"]
    ways = {
        source: plan(grid, "smoke", cell, [0], [f"data.source={source}", *more])[0].settings.data.resize
        for source, more in (("embedded", ()), ("cifar10", ()), ("mnist", ["data.resize=pad"]))
    }
    assert ways == {"embedded": "average", "cifar10": None, "mnist": "pad"}


def test_a_checkpoint_from_before_sees_the_pixels_that_it_was_trained_on(call, tmp_path):
    data = blobs(tmp_path / "d.npz", 8)
    done = call(
        "train", "--cell", "eps-mse-fixed", "--preset", tiny_preset(tmp_path), "--data", data, "--out", tmp_path / "run",
        "--device", "cpu", "--resize", "pad",
    )  # fmt: skip
    assert done.code == 0, done.err
    snapshot = next((tmp_path / "run").glob("step-000010"))
    state = unsealed(snapshot)
    (snapshot / "state.json").write_text(json.dumps(state | {"identity": old(state["identity"])}))
    model = load_model(tmp_path / "run")
    assert model.data.resize == "older" and "resize" not in model.identity["data"]
    for source in (None, data):
        assert reference_data(model, source).sha256 == model.identity["data_sha256"]
    with pytest.raises(UserError, match="fitted as it was then"):
        reference_data(model, None, resize="pad")


def test_a_run_from_before_goes_on_where_the_pixels_are_the_same(tmp_path):
    for was, now in (("average", None), (None, "pad"), ("average", "average")):
        pixels = {"data_sha256": "a" * 64}
        [then, here] = (
            {"data": DataSettings(source="cifar10", resize=way).model_dump(mode="json")} | pixels for way in (was, now)
        )
        for found in (then, old(then)):
            check_identity(tmp_path, found, here)
    with pytest.raises(UserError, match="data_sha256: was") as raised:
        check_identity(tmp_path, old(then) | {"data_sha256": "b" * 64}, here)
    assert "data.resize: was older" in str(raised.value)  # which may be why


def test_what_lacks_the_setting_was_fitted_as_older_versions_did():
    data = DataSettings(source="cifar10").model_dump(mode="json")
    assert completed({"data": data})["data"]["resize"] is None
    assert completed(old({"data": data}))["data"]["resize"] == "older"


@pytest.fixture(scope="module")
def committed():
    return Path(__file__).parent.parent / "results" / "table2-quick"


def test_the_committed_records_are_found_as_measured(committed):
    jobs = plan(load_grid("table2"), "quick", None, [0, 1, 2], [])
    data = load_data(jobs[0].settings.data)
    extractor = load_extractor("embedded", size=16, cache=committed)
    assert len(check_results(committed, jobs, data, extractor, Runtime())) == 18
    record = read_record(next(committed.glob("*-seed0.json")))
    assert record.settings.data.resize == "older" and record.data.notes == () and data.notes
    said = dict(FACTS)["data"](record.model_copy(update={"data": record.data.model_copy(update={"notes": data.notes})}))
    assert "28x28 to 16x16 pixels by average" in said
    assert Record.model_validate(record.as_json()) == record


def test_an_old_record_is_no_other_configuration_while_its_pixels_are_the_same(committed, tmp_path):
    path = next(committed.glob("eps-mse-fixed-seed0.json"))
    (tmp_path / path.name).write_bytes(path.read_bytes())
    [job] = plan(load_grid("table2"), "quick", ["eps-mse-fixed"], [0], ["data.resize=bicubic-antialias"])
    by_average = load_data(DataSettings(source="embedded", size=16, resize="average"))
    extractor = load_extractor("embedded", size=16, cache=tmp_path)
    assert check_results(
        tmp_path, [job], by_average, extractor, Runtime()
    )  # the pixels are the same, whatever way is named
    with pytest.raises(UserError, match=r"data\.sha256: was"):
        check_results(tmp_path, [job], load_data(job.settings.data), extractor, Runtime())


def test_tiny_data_is_of_the_size_of_the_tiny_preset(tmp_path):
    assert load_data(DataSettings(source=tiny_data(tmp_path / "t.npz"), size=16)).notes == ()
