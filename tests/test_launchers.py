"""Cells side by side: the same records as one after the other, and a stop that reaches every process."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import SMALL
from tiny_models import tiny_data, tiny_preset

from ddpm_bench.config.grid import load_grid
from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import load_data
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.experiment.ablate import plan
from ddpm_bench.experiment.cell import Bench
from ddpm_bench.experiment.launchers import Inline, Launcher, Processes, choose_launcher
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.records.record import Record, read_records
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.observer import Observer
from ddpm_bench.runtime.runtime import Runtime

CELLS = "mu-L-fixed,mu-mse-fixed,eps-mse-fixed"


def ablate(folder, workers, *more):
    return [sys.executable, "-m", "ddpm_bench", "ablate", "--preset", "smoke", *SMALL, "--device", "cpu", "--cells", CELLS,
            "--results", str(folder / "results"), "--no-report", "--workers", str(workers), *more]  # fmt: skip


def test_there_are_never_more_workers_than_jobs_or_by_default_more_than_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")

    def workers(wanted, jobs, device):
        return workers_of(choose_launcher(None, wanted, jobs, device))

    assert [workers(None, jobs, cpu) for jobs in (0, 1, 3, 6)] == [1, 1, 3, 4]
    assert [workers(None, jobs, cuda) for jobs in (1, 6)] == [1, 1]
    assert [workers(wanted, 6, cuda) for wanted in (1, 2, 9)] == [1, 2, 6]


def workers_of(launcher: Launcher) -> int:
    return launcher.workers if isinstance(launcher, Processes) else 1


def test_a_launcher_is_chosen_by_its_name_and_an_unknown_one_is_refused():
    cpu = torch.device("cpu")
    assert isinstance(choose_launcher("inline", None, 6, cpu), Inline)
    with pytest.raises(UserError, match="--workers 3 does not go with --launcher inline"):
        choose_launcher("inline", 3, 6, cpu)
    assert isinstance(choose_launcher("processes", 1, 6, cpu), Processes)
    with pytest.raises(UserError, match="did you mean 'processes'"):
        choose_launcher("proceses", None, 6, cpu)


def test_interrupted_side_by_side_all_save_and_the_same_command_finishes(tmp_path):
    command = ablate(tmp_path, 2, "--set", "training.steps=150", "--set", "training.checkpoint_every=150")
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    work, deadline = tmp_path / "results" / "work", time.monotonic() + 600
    while len(list(work.glob("*/log.jsonl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=600)
    assert first.returncode == 130 and "the same command goes on" in said and "Traceback" not in said
    assert len(list(work.glob("*/step-*/state.json"))) == 2
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert second.stderr.count("going on at step") == 2
    assert sorted(record.cell for record in read_records(tmp_path / "results")) == sorted(CELLS.split(","))


@pytest.fixture
def bench(tmp_path) -> Bench:
    data = load_data(DataSettings(source=tiny_data(tmp_path / "data.npz"), size=16))
    extractor = load_extractor("embedded", size=16, cache=tmp_path / "cache")
    return Bench(tmp_path / "results", data, extractor, Runtime(cache=tmp_path / "cache"))


def tiny_jobs(folder, *more):
    return plan(load_grid("table2"), tiny_preset(folder), ["mu-L-fixed", "eps-L-fixed"], [0], more)


def test_a_stop_while_processes_begin_is_no_failure(tmp_path, bench):
    ended = []
    with Stop() as stop, pytest.raises(Interrupted):
        stop.requested = True
        ended.extend(Processes(2).run(tiny_jobs(tmp_path), bench, lambda job: Observer()))
    assert ended == [] and not list(bench.results.rglob("*.json"))


def test_a_stop_while_one_process_has_no_job_lets_the_other_save(tmp_path, bench):
    short, _ = tiny_jobs(tmp_path)
    _, long = tiny_jobs(tmp_path, "training.steps=1000000", "training.checkpoint_every=1000000")
    ended = []
    with Stop() as stop, pytest.raises(Interrupted):
        for job, result in Processes(2).run([short, long], bench, lambda job: Observer()):
            ended.append((job, type(result)))
            stop.requested = True
    assert ended == [(short, Record)]
    assert list((bench.results / "work" / long.name).glob("step-*/state.json"))


def test_side_by_side_gives_the_records_of_one_after_the_other(tmp_path, monkeypatch):
    # As many threads for the cells one after the other as each worker has, so that every digit is the same.
    monkeypatch.setenv("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    small = (
        "--preset",
        tiny_preset(tmp_path),
        "--data",
        tiny_data(tmp_path / "data.npz"),
        "--cells",
        "mu-L-fixed,eps-L-fixed",
    )
    for name, workers in (("together", 2), ("apart", 1)):
        subprocess.run(ablate(tmp_path / name, workers, *small), check=True, capture_output=True)
    together, apart = (read_records(tmp_path / name / "results") for name in ("together", "apart"))
    assert [record.cell for record in together] == ["eps-L-fixed", "mu-L-fixed"]
    for one, other in zip(together, apart, strict=True):
        assert one.cell == other.cell and {"precision", "recall", "fd_train"} <= one.last.metrics.keys()
        for part in ("checkpoints", "bounds", "anchors", "training_log", "neighbours"):
            assert getattr(one, part) == getattr(other, part), part
