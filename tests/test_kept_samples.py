"""Samples kept in shards: whatever lies in the folder, what is handed out is what the chain draws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny_models import tiny_checkpoint

from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.measurement.samples import draw_samples
from ddpm_bench.models.model import Model, load_model
from ddpm_bench.runtime.runtime import Runtime

COUNT = 20


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(tiny_checkpoint(tmp_path / "tiny"))


def draw(model: Model, folder: Path, batch: int) -> torch.Tensor:
    return draw_samples(model, SamplingSettings(samples=COUNT), 0, Runtime(batch=batch), folder)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("samples-*/*.safetensors"))


@pytest.mark.parametrize("batch", [8, 16, 20, 3])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_shard_is_drawn_again_in_whatever_batches(model, tmp_path: Path, lost: int, batch: int) -> None:
    whole = draw(model, tmp_path / "a", 8)
    shards(tmp_path / "a")[lost].unlink()
    again = draw(model, tmp_path / "a", batch)
    assert (again.short() - whole.short()).abs().max() <= 1  # other batches round otherwise
    assert torch.equal(draw(model, tmp_path / "a", batch), again)


@pytest.mark.parametrize("damage", ["truncated", "empty", "of another length", "a flipped bit", "swapped", "of floats"])
def test_a_damaged_shard_is_said_and_drawn_again(model, tmp_path: Path, caplog, damage: str) -> None:
    whole = draw(model, tmp_path, 8)
    before, shard = shards(tmp_path)[:2]
    content, images = shard.read_bytes(), load_file(shard)["images"]
    with safe_open(shard, "np") as file:
        told = file.metadata()
    match damage:
        case "truncated":
            shard.write_bytes(content[:100])
        case "empty":
            shard.write_bytes(b"")
        case "a flipped bit":
            shard.write_bytes(content[:-9] + bytes([content[-9] ^ 16]) + content[-8:])
        case "swapped":
            shard.write_bytes(before.read_bytes())
        case "of another length":
            save_file({"images": images[:3]}, shard, told)
        case "of floats":
            save_file({"images": images.astype(np.float32)}, shard, told)
    with caplog.at_level("INFO", "ddpm_bench"):
        again = draw(model, tmp_path, 8)
    assert torch.equal(again, whole)
    assert "its hash is not that of its content" in caplog.text and shard.name in caplog.text


def test_loading_a_model_leaves_the_callers_generator_alone(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(folder)
    assert torch.equal(torch.rand(3), expected)
