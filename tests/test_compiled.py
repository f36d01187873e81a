"""--compile: the network of a command is compiled, its record says so, and nothing else changes."""

import json

import pytest
from conftest import SMALL
from tiny_models import tiny_checkpoint, tiny_data
from torch import nn

from ddpm_bench.config.networks import MixedSettings, UNetSettings
from ddpm_bench.networks.mixed import Mixed
from ddpm_bench.records.record import read_record
from ddpm_bench.runtime.runtime import Runtime


@pytest.fixture
def compiled(monkeypatch):
    """The networks for which torch.compile was asked; each goes on as it is, a compiler may be missing."""
    asked = []

    def stand_in(self, **options):
        asked.append((type(self).__name__, options))
        self._compiled_call_impl = self._call_impl

    monkeypatch.setattr(nn.Module, "compile", stand_in)
    monkeypatch.setattr("torch.compile", lambda function: function)
    return asked


def test_a_cell_trains_samples_and_scores_compiled_and_its_record_says_so(call, compiled, tmp_path) -> None:
    folder = tmp_path / "results"
    answer = call(
        "ablate", "--preset", "smoke", "--cells", "eps-mse-fixed", *SMALL, "--device", "cpu", "--workers", 1, "--compile",
        "--results", folder, "--no-report",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert len(compiled) > 1 and {name for name, _ in compiled} == {"UNet"}
    assert all(options == {"dynamic": False} for _, options in compiled)
    assert read_record(folder / "eps-mse-fixed-seed0.json").hardware["compiled"] is True


@pytest.mark.parametrize(
    "command", [["nll", "--images", 2, "--json"], ["evaluate", "--count", 12, "--bound-images", 2, "--json"]]
)
def test_a_checkpoint_is_scored_compiled(call, compiled, tmp_path, command) -> None:
    ckpt, data = tiny_checkpoint(tmp_path / "model"), tiny_data(tmp_path / "data.npz")
    options = ["--ckpt", ckpt, "--data", data, "--data-name", "tiny", "--device", "cpu", "--cache", tmp_path / "cache"]
    options += ["--results", tmp_path / "rows"] if command[0] == "evaluate" else []
    answer = call(*command, *options, "--compile")
    assert answer.code == 0, answer.err
    assert len(compiled) == 1 and json.loads(answer.out)["hardware"]["compiled"] is True


def test_both_networks_of_a_mix_are_compiled_since_each_is_called_alone(compiled) -> None:
    settings = MixedSettings(network=UNetSettings(base=4, multipliers=(1,), attention=(), groups=2), below=1, above=2)
    network = Mixed(1, 1, 8, settings)
    Runtime(compiled=True).place(Runtime(compiled=True).place(network))
    assert sorted(name for name, _ in compiled) == ["Mixed", "UNet", "UNet"]
