"""Two ranks on the CPU come to what one process does in all but training, and end together."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_checkpoint, tiny_data, tiny_preset
from two_ranks import alone, two

from ddpm_bench.cli.setup import on_gpus
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import ImageData, load_data
from ddpm_bench.errors import Interrupted, NotFinite, UserError
from ddpm_bench.likelihood.ode import Solving
from ddpm_bench.measurement.bounds import BoundMethod, bound_of
from ddpm_bench.measurement.likelihood import LikelihoodMethod, likelihood_of
from ddpm_bench.measurement.samples import draw_samples
from ddpm_bench.metrics.extractor import MeasuredImages
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.metrics.features import outputs_of
from ddpm_bench.models.model import Model, load_model
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.interrupt import Stop, check_stop
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.runtime import Runtime

__all__ = ["two"]  # a fixture

RUNTIME = Runtime(batch=3)


# ---- blocks of images -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    return load_data(DataSettings(source=tiny_data(tmp_path_factory.mktemp("data") / "tiny.npz"), size=16))


def share(count: int) -> list[int]:
    return list(ranks.mine(range(count)))


def test_each_rank_takes_every_second_and_all_is_one_process_own_elsewhere() -> None:
    assert ranks.together(share, 5) == [[0, 2, 4], [1, 3]] and share(5) == [0, 1, 2, 3, 4]
    assert [ranks.batch_for(count, 8) for count in (100, 10, 1)] == [8, 5, 1]
    with alone():
        assert ranks.together(share, 3) == [[0, 1, 2]] and ranks.batch_for(10, 8) == 8


def writers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*/*.safetensors"))


def test_two_ranks_draw_the_samples_of_one_and_a_gap_is_drawn_again(tmp_path: Path, model: Model) -> None:
    wish = SamplingSettings(samples=10)
    both = draw_samples(model, wish, 0, RUNTIME, tmp_path / "both")
    assert len(writers(tmp_path / "both")) == 4
    with alone():
        one = draw_samples(model, wish, 0, RUNTIME, tmp_path / "one")
    assert torch.equal(both, one)
    next((tmp_path / "both").glob("*/00000003-*")).unlink()  # as where rank 1 was killed while 0 was ahead
    assert torch.equal(draw_samples(model, wish, 0, RUNTIME, tmp_path / "both"), one)


@pytest.mark.parametrize("evals", [None, 5])
def test_the_bound_of_two_ranks_is_that_of_one(
    tmp_path: Path, model: Model, data: ImageData, evals: int | None
) -> None:
    method = BoundMethod(10, evals, 0)
    both = bound_of(model, data, "test", method, RUNTIME, tmp_path / "both")
    with alone():
        one = bound_of(model, data, "test", method, RUNTIME, tmp_path / "one")
    for name in ("prior", "middle", "first", "variance", "noise", *(("terms", "mse") if evals is None else ())):
        torch.testing.assert_close(getattr(both, name), getattr(one, name), rtol=0, atol=1e-6)
    assert writers(tmp_path / "both") == writers(tmp_path / "one")


def test_the_likelihood_of_two_ranks_is_that_of_one(tmp_path: Path, model: Model, data: ImageData) -> None:
    method = LikelihoodMethod(2, 0, Solving(draws=1, rtol=0.1, atol=0.1))
    both = likelihood_of(model, data, "test", method, replace(RUNTIME, batch=1), tmp_path / "both")
    with alone():
        one = likelihood_of(model, data, "test", method, replace(RUNTIME, batch=1), tmp_path / "one")
    torch.testing.assert_close(both.total, one.total, rtol=0, atol=1e-6)


def test_features_of_two_ranks_are_those_of_one_in_order(tmp_path: Path, data: ImageData) -> None:
    extractor = replace(load_extractor("embedded", size=16, cache=tmp_path), batch=7)
    shown = MeasuredImages("images", data.train.images, extractor)
    both = outputs_of(shown, extractor, Runtime(), spatial=True)
    with alone():
        one = outputs_of(shown, extractor, Runtime(), spatial=True)
    assert torch.equal(both.features, one.features) and torch.equal(both.logits, one.logits)
    assert both.spatial is not None and one.spatial is not None and torch.equal(both.spatial, one.spatial)


# ---- errors ---------------------------------------------------------------------------------------------------------------


def fails(on: int, error: Exception) -> None:
    if ranks.rank() == on:
        raise error


@pytest.mark.parametrize("error", [NotFinite("3 samples are not finite"), OSError(28, "No space left on device")])
def test_an_error_of_one_rank_is_raised_here_and_the_ranks_go_on(error: Exception) -> None:
    for on in (0, 1):
        with pytest.raises(type(error), match=str(error.args[-1])):
            ranks.together(fails, on, error)
    assert ranks.together(ranks.rank) == [0, 1]


def waits(on: int) -> None:
    say(f"from {ranks.rank()}")
    while ranks.rank() == on:
        check_stop()
        time.sleep(0.01)


@pytest.mark.parametrize("on", [0, 1])
def test_a_wish_to_stop_reaches_whoever_is_still_at_work(on: int) -> None:
    with Stop() as stop, pytest.raises(Interrupted):
        threading.Timer(0.1, lambda: setattr(stop, "requested", True)).start()
        ranks.together(waits, on)
    assert ranks.together(ranks.rank) == [0, 1]


def test_a_signal_that_torchrun_passes_on_is_no_second_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    for echo_s, expected in ((60.0, contextlib.nullcontext()), (0.0, pytest.raises(Interrupted))):
        monkeypatch.setattr(Stop, "echo_s", echo_s)
        with Stop() as stop, expected:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested


def test_what_another_rank_says_is_said_here(messages, capsys: pytest.CaptureFixture[str]) -> None:
    ranks.together(waits, -1)
    assert capsys.readouterr().err == "from 0\nrank 1: from 1\n"


def test_ranks_that_cannot_have_a_gpu_each_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 ranks on this machine need a GPU each, and torch finds 1"):
        ranks.check_device(torch.device("cuda"))
    with pytest.raises(UserError, match=r"--gpus 4: torch finds 1 on this machine\. Use --gpus 1"):
        on_gpus(4, torch.device("cuda"))
    with pytest.raises(UserError, match="2 ranks cannot be started by one of 2"), ranks.started(2):
        pass


LOST = """
    import os, sys
    import torch
    from ddpm_bench import cli
    from ddpm_bench.runtime import ranks

    def work(how):
        if ranks.rank() == 1:
            if how == "killed":
                os.kill(os.getpid(), 9)
            raise LookupError("no such thing")
        ranks.gathered(torch.zeros(1))

    def command():
        with ranks.started(2):
            ranks.in_step(work, sys.argv[1])

    if __name__ == "__main__":
        cli.app = command
        cli.main()
"""


@pytest.mark.parametrize(
    "how, told", [("fails", "rank 1 failed: LookupError: no such thing"), ("killed", "rank 1 ended with")]
)
def test_a_rank_that_is_lost_ends_the_command_with_one_message(tmp_path: Path, how: str, told: str) -> None:
    script = tmp_path / "lost.py"
    script.write_text(textwrap.dedent(LOST))
    began = time.monotonic()
    run = subprocess.run([sys.executable, script, how], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and run.stderr.startswith(f"ddpm-bench: {told}") and run.stderr.count("\n") == 1
    assert time.monotonic() - began < 50


# ---- commands -------------------------------------------------------------------------------------------------------------


def test_what_does_not_go_with_ranks_is_refused_by_name(tmp_path: Path, call) -> None:
    common = ["ablate", "--preset", tiny_preset(tmp_path), "--device", "cpu", "--results", tmp_path / "results"]
    with alone():
        assert "--gpus 4: the device is 'cpu'. Leave it out" in call(*common, "--gpus", 4).err
    told = call(*common, "--workers", 2)
    assert told.code == 2 and "--workers does not go with 2 ranks" in told.err
    told = call(*common, "--set", "training.batch=3")
    assert told.code == 2 and "training.batch = 3 cannot be shared evenly by 2 ranks" in told.err


def test_a_cell_of_two_ranks_is_that_of_one_up_to_rounding(tmp_path: Path, call) -> None:
    data = tiny_data(tmp_path / "tiny.npz")
    found = {}
    for name in ("both", "one"):
        arguments = [
            "ablate", "--preset", tiny_preset(tmp_path), "--cells", "eps-mse-fixed", "--device", "cpu", "--data", data,
            "--data-name", "tiny", "--cache", tmp_path / name / "cache", "--results", tmp_path / name, "--no-report",
        ]  # fmt: skip
        if name == "one":
            with alone():
                told = call(*arguments, "--workers", 1)
        else:
            told = call(*arguments)
        assert told.code == 0, told.err
        found[name] = json.loads(next((tmp_path / name).glob("*.json")).read_text())
    both, one = (each["checkpoints"][-1]["metrics"] for each in found.values())
    assert both == pytest.approx(one, rel=1e-3)
    assert found["both"]["hardware"]["ranks"] == 2 and "ranks" not in found["one"]["hardware"]


def test_torchrun_trains_a_cell_and_it_is_said_once(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "ddpm_bench", "train", "--cell",
        "eps-mse-fixed", "--preset", tiny_preset(tmp_path), "--device", "cpu", "--out", str(tmp_path / "out"), "--json",
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and json.loads(run.stdout)["step"] == 10, run.stderr
    assert run.stderr.count("trained to step 10") == 1
