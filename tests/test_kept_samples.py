"""Samples kept in shards: whatever lies in the folder, what is handed out is what the chain draws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_checkpoint

from ddpm_bench.config.settings import SamplingSettings
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
    return sorted(folder.glob("samples-*/*.npy"))


@pytest.mark.parametrize("batch", [8, 16, 20, 3])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_shard_is_drawn_again_in_whatever_batches(model, tmp_path: Path, lost: int, batch: int) -> None:
    whole = draw(model, tmp_path / "a", 8)
    shards(tmp_path / "a")[lost].unlink()
    again = draw(model, tmp_path / "a", batch)
    assert (again.short() - whole.short()).abs().max() <= 1  # other batches round otherwise
    assert torch.equal(draw(model, tmp_path / "a", batch), again)


@pytest.mark.parametrize("damage", ["truncated", "empty", "of another length"])
def test_a_damaged_shard_is_said_and_drawn_again(model, tmp_path: Path, caplog, damage: str) -> None:
    whole = draw(model, tmp_path, 8)
    shard = shards(tmp_path)[1]
    if damage == "of another length":
        np.save(shard, np.load(shard)[:3])
    else:
        shard.write_bytes(shard.read_bytes()[: 100 if damage == "truncated" else 0])
    with caplog.at_level("INFO", "ddpm_bench"):
        again = draw(model, tmp_path, 8)
    assert torch.equal(again, whole)
    assert "was damaged" in caplog.text and shard.name in caplog.text


def test_loading_a_model_leaves_the_callers_generator_alone(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(folder)
    assert torch.equal(torch.rand(3), expected)
