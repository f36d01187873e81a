"""Images at another size: refused unless asked for, by whichever command, and told where it was done."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_fidelity import projection
from tiny_models import tiny_checkpoint, tiny_data, tiny_preset

from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import load_data
from ddpm_bench.errors import UserError


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


def test_tiny_data_is_of_the_size_of_the_tiny_preset(tmp_path):
    assert load_data(DataSettings(source=tiny_data(tmp_path / "t.npz"), size=16)).notes == ()
