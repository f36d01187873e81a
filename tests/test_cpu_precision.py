"""--precision: float32 or bfloat16 on any device, or the faster; a run keeps to one, and its record says which."""

import json

import pytest
import torch
from tiny_models import tiny_checkpoint, tiny_data, tiny_preset, unsealed
from torch import nn

from ddpm_bench.cli import setup
from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.networks.unet import UNet
from ddpm_bench.records.conditions import sorted_out
from ddpm_bench.records.fields import networks_in
from ddpm_bench.records.provenance import hardware
from ddpm_bench.records.record import read_record, write_record
from ddpm_bench.runtime.precision import ROUNDS, Choice, faster, settled
from ddpm_bench.runtime.runtime import Runtime

CPU = torch.device("cpu")


@pytest.fixture
def network() -> UNet:
    return UNet(1, 1, 16, UNetSettings(base=4, multipliers=(1,), blocks=1, attention=(), groups=2))


class Clock:
    """Says so many seconds for a call in each precision, after it was made."""

    def __init__(self, network: nn.Module, float32: float, bfloat16: float) -> None:
        self.network, self.says, self.calls = network, {False: float32, True: bfloat16}, []

    def __call__(self, work, device) -> float:
        work()
        self.calls.append(self.network.in_bfloat16)
        return self.says[self.network.in_bfloat16]


# ---- which is faster ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("float32", "bfloat16", "chosen"), [(1.0, 3.0, "float32"), (1.0, 0.6, "bfloat16"), (1.0, 1.0, "float32")]
)
def test_the_faster_is_chosen_and_of_equal_ones_float32(network, training, float32, bfloat16, chosen) -> None:
    clock = Clock(network, float32, bfloat16)
    found = faster(network, (1, 16, 16), 4, CPU, training, clock)
    assert found == Choice(precision=chosen, seconds={"float32": float32, "bfloat16": bfloat16})
    assert clock.calls == [False, True] * (1 + ROUNDS)  # interleaved


def test_timing_leaves_the_generator_and_no_gradients(network) -> None:
    before = torch.get_rng_state()
    faster(network, (1, 16, 16), 4, CPU, True, Clock(network, 1, 2))
    assert torch.equal(before, torch.get_rng_state()) and all(p.grad is None for p in network.parameters())


def test_a_cpu_is_timed_with_a_batch_that_it_can_take(network) -> None:
    seen = []
    network.register_forward_hook(lambda _, given, made: seen.append(len(given[0])))
    faster(network, (1, 16, 16), 1000, CPU, False, Clock(network, 1, 2))
    assert set(seen) == {64}


def test_a_network_that_knows_no_bfloat16_computes_in_float32() -> None:
    assert faster(nn.Conv2d(1, 1, 1), (1, 16, 16), 4, CPU, True) == Choice(precision="float32", seconds={})


def test_what_was_chosen_is_kept_and_a_damaged_choice_is_made_again(tmp_path) -> None:
    kept, choices = tmp_path / "work" / "precision.json", iter(["bfloat16", "float32"])

    def choose() -> Choice:
        return Choice(precision=next(choices), seconds={"float32": 2.0, "bfloat16": 1.0})

    assert settled(choose, kept) == settled(choose, kept) == "bfloat16"
    kept.write_text(kept.read_text().replace("bfloat16", "float32", 1))
    assert settled(choose, kept) == "float32"


# ---- a grid ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bfloat16_is_faster(monkeypatch):
    monkeypatch.setattr(
        setup, "faster", lambda *_, **__: Choice(precision="bfloat16", seconds={"float32": 2, "bfloat16": 1})
    )


@pytest.fixture
def measured(call, tmp_path):
    def run(*more, cells="eps-mse-fixed"):
        return call(
            "ablate", "--preset", tiny_preset(tmp_path, tiny_data(tmp_path / "images.npz")), "--device", "cpu", "--workers", 1,
            "--cells", cells, "--results", tmp_path / "results", "--cache", tmp_path / "cache", "--no-report", *more,
        )  # fmt: skip

    return run


def test_a_grid_keeps_the_precision_that_it_began_in_and_its_records_say_it(
    measured, bfloat16_is_faster, monkeypatch, tmp_path
) -> None:
    answer = measured("--precision", "auto")
    assert answer.code == 0 and "bfloat16: a call took 2 s in float32 and 1 s in bfloat16" in answer.err, answer.err
    path = tmp_path / "results" / "eps-mse-fixed-seed0.json"
    assert networks_in(read_record(path).hardware) == "bfloat16"
    monkeypatch.setattr(setup, "faster", lambda *_, **__: Choice(precision="float32", seconds={}))
    again = measured("--precision", "auto")
    assert again.code == 0 and "as when this was begun" in again.err and "measured already" in again.err
    for more, cells in ((("--precision", "float32"), "eps-mse-fixed"), ((), "eps-mse-fixed,mu-mse-fixed")):
        refused = measured(*more, cells=cells)
        assert refused.code == 2 and "measured in bfloat16" in refused.err and "--precision bfloat16" in refused.err
    taken = measured()
    assert taken.code == 0 and "were measured in bfloat16, and not in float32" in taken.err


def test_records_of_two_precisions_share_no_table(small_run) -> None:
    one, other = (read_record(path) for path in sorted(small_run.results.glob("*-seed0.json")))
    assert len(sorted_out([one, other], load_grid("table2"))[0]) == 2
    rounded = other.model_copy(update={"hardware": hardware(CPU, precision="bfloat16")})
    kept, (aside,) = sorted_out([one, rounded], load_grid("table2"))
    assert kept == [one] and "networks: was float32" in aside.why


def test_comparing_records_of_two_precisions_says_so(small_run, call, tmp_path) -> None:
    path = small_run.results / "eps-mse-fixed-seed0.json"
    record = read_record(path)
    rounded = record.model_copy(update={"hardware": hardware(CPU, precision="bfloat16")})
    other = write_record(tmp_path, rounded)
    assert "bfloat16 for others" in call("compare", other, path).err
    assert "bfloat16" not in call("compare", path, path).err


def test_hardware_says_bfloat16_and_on_a_cpu_nothing_of_float32(monkeypatch) -> None:
    assert hardware(CPU) == hardware(CPU, precision="float32") and "networks" not in hardware(CPU)
    assert networks_in(hardware(CPU)) == "float32" and networks_in(hardware(CPU, precision="bfloat16")) == "bfloat16"
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "a GPU")
    gpu = torch.device("cuda")
    assert networks_in(hardware(gpu)) == "bfloat16" and networks_in(hardware(gpu, precision="float32")) == "float32"


# ---- a training --------------------------------------------------------------------------------------------------------


def test_a_training_goes_on_in_its_precision_alone(call, tmp_path) -> None:
    out, preset = tmp_path / "run", tiny_preset(tmp_path, tiny_data(tmp_path / "images.npz"))

    def train(steps: int, *more):
        how = ["--set", f"training.steps={steps}", "--device", "cpu", "--cell", "eps-mse-fixed"]
        return call("train", "--preset", preset, *how, "--out", out, *more)

    assert train(10, "--precision", "bfloat16").code == 0
    assert json.loads((out / "step-000010" / "state.json").read_text())["precision"] == "bfloat16"
    refused = train(10)
    assert refused.code == 2 and "trained in bfloat16" in refused.err and "--precision bfloat16" in refused.err
    assert train(10, "--precision", "bfloat16").code == 0
    unsealed(out / "step-000010", "precision")  # as an older version wrote it
    assert train(10).code == 0


# ---- a checkpoint ------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    return ["--ckpt", tiny_checkpoint(tmp_path / "model"), "--device", "cpu"]


def test_each_command_of_a_checkpoint_takes_a_precision_and_says_it(call, model, tmp_path, bfloat16_is_faster) -> None:
    data = ["--data", tiny_data(tmp_path / "data.npz"), "--data-name", "tiny", "--cache", tmp_path / "cache", "--json"]
    row = ["evaluate", *model, *data, "--count", 12, "--bound-images", 2, "--results", tmp_path / "rows"]
    for command in (["nll", *model, *data, "--images", 2], row):
        for wanted in ("auto", "bfloat16"):
            answer = call(*command, "--precision", wanted)
            assert answer.code == 0, answer.err
            assert networks_in(json.loads(answer.out)["hardware"]) == "bfloat16"
    refused = call(*row, "--precision", "float32")
    assert refused.code == 2 and "networks: was bfloat16" in refused.err
    assert ", in bfloat16;" in call(*row).err
    drawn = call("sample", *model, "--samples", 4, "--out", tmp_path / "samples.npz", "--precision", "bfloat16")
    assert drawn.code == 0, drawn.err


def test_work_in_another_precision_is_never_mixed() -> None:
    assert Runtime(precision="bfloat16").arithmetic != Runtime().arithmetic == Runtime(precision="float32").arithmetic
