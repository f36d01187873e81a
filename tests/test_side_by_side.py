"""Cells side by side: the same records as one after the other, a stop that reaches every process, and deaths."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tiny_models import PLAIN, tiny_bench, tiny_data, tiny_jobs, tiny_preset

from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.experiment.job import Bench
from ddpm_bench.experiment.launchers import Processes
from ddpm_bench.experiment.launchers.worker import Worker
from ddpm_bench.records.record import Record, read_records, record_path
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.observer import Observer
from ddpm_bench.runtime.owner import owned

LONG = ("--set", "training.steps=1000000", "--set", "training.checkpoint_every=1000000")
MEASURED = ("checkpoints", "bounds", "anchors", "training_log", "neighbours")


def ablate(folder, workers, *more):
    """Two tiny cells by the real command."""
    return [sys.executable, "-m", "ddpm_bench", "ablate", "--preset", tiny_preset(folder), "--data", tiny_data(folder / "data.npz"),
            "--device", "cpu", "--cells", "mu-L-fixed,eps-L-fixed", "--cache", str(folder / "cache"),
            "--results", str(folder / "results"), "--no-report", "--workers", str(workers), *more]  # fmt: skip


@pytest.fixture
def bench(tmp_path) -> Bench:
    return tiny_bench(tmp_path)


@contextlib.contextmanager
def as_python(program):
    """Workers are begun with this program."""
    before = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable(str(program))
    try:
        yield
    finally:
        multiprocessing.set_executable(before)


def test_each_worker_sees_its_own_device_alone_from_its_first_moment(tmp_path, bench, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")  # of this process: its second GPU is the machine's 7
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\ncase "$*" in *spawn_main*) echo $CUDA_VISIBLE_DEVICES >> {tmp_path}/seen ;; esac\n')
    script.chmod(0o755)
    with as_python(script):
        list(Processes(2, (1, 0)).run(tiny_jobs(tmp_path), bench, lambda job: Observer()))
    assert sorted((tmp_path / "seen").read_text().split()) == ["5", "7"] and os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"


def test_a_stop_while_processes_begin_is_no_failure(tmp_path, bench):
    ended = []
    with Stop() as stop, pytest.raises(Interrupted):
        stop.requested = True
        ended.extend(Processes(2).run(tiny_jobs(tmp_path), bench, lambda job: Observer()))
    assert ended == [] and not list(bench.results.rglob("*.json"))


def test_a_stop_while_one_process_has_no_job_lets_the_other_save(tmp_path, bench):
    short, _ = tiny_jobs(tmp_path)
    _, long = tiny_jobs(tmp_path, *LONG[1::2], "training.log_every=1")
    ended, log = [], bench.results / "work" / long.name / "log.jsonl"
    with Stop() as stop, pytest.raises(Interrupted):
        for job, result in Processes(2).run([short, long], bench, lambda job: Observer()):
            ended.append((job, type(result)))
            wait_until(lambda: log.exists() and log.read_text(), 60)  # it has begun
            stop.requested = True
    assert ended == [(short, Record)]
    assert list((bench.results / "work" / long.name).glob("step-*/state.json"))


def test_a_worker_that_has_begun_saves_though_its_parent_has_not_heard_that_it_is_ready(tmp_path, bench):
    _, long = tiny_jobs(tmp_path, *LONG[1::2], "training.log_every=1")
    work, worker = bench.results / "work" / long.name, Worker(long, bench, threads=1, every=1.0)
    try:
        wait_until(lambda: (work / "log.jsonl").exists() and (work / "log.jsonl").read_text(), 60)
        worker.stop()
        wait_until(lambda: list(work.glob("step-*/state.json")), 60)
    finally:
        worker.kill()


def test_side_by_side_gives_the_records_of_one_after_the_other(tmp_path, monkeypatch):
    # As many threads for the cells one after the other as each worker has, so that every digit is the same.
    monkeypatch.setenv("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    for name, workers in (("together", 2), ("apart", 1)):
        (tmp_path / name).mkdir()
        subprocess.run(ablate(tmp_path / name, workers), check=True, capture_output=True)
    together, apart = (read_records(tmp_path / name / "results") for name in ("together", "apart"))
    assert [record.cell for record in together] == ["eps-L-fixed", "mu-L-fixed"]
    for one, other in zip(together, apart, strict=True):
        assert one.cell == other.cell and {"precision", "recall", "fd_train"} <= one.last.metrics.keys()
        for part in MEASURED:
            assert getattr(one, part) == getattr(other, part), part


def test_the_last_cell_left_of_a_grid_comes_out_as_it_does_beside_others(tmp_path):
    command, results = ablate(tmp_path, 2), tmp_path / "results"
    subprocess.run(command, check=True, capture_output=True)
    straight = read_records(results)[0]
    record_path(results, straight.cell, straight.seed).unlink()
    shutil.rmtree(results / "work" / f"{straight.cell}-seed0")
    subprocess.run(command, check=True, capture_output=True)
    again = read_records(results)[0]
    assert again.created >= straight.created and again.hardware == straight.hardware
    for part in MEASURED:
        assert getattr(again, part) == getattr(straight, part), part


# ---- deaths ---------------------------------------------------------------------------------------------------------


def process_of(work) -> int:
    """The process that measures a cell, by the lock of its folder."""
    return json.loads((work / ".owner.held").read_text())["process"]


class Killer(Observer):
    """Kills the process of its job once it trains."""

    every = 0.0

    def __init__(self, work) -> None:
        self.work = work

    def show(self, reading) -> None:
        if reading.title.endswith("training"):
            os.kill(process_of(self.work), signal.SIGKILL)


def test_a_worker_that_dies_costs_its_own_job_alone(tmp_path, bench):
    short, _ = tiny_jobs(tmp_path)
    _, long = tiny_jobs(tmp_path, *LONG[1::2])
    killers = {long.name: Killer(bench.results / "work" / long.name)}
    ended = {}
    for job, result in Processes(1).run([long, short], bench, lambda job: killers.get(job.name, Observer())):
        ended[job.name] = result
    assert ended[long.name] == (
        "its process died: it ended by SIGKILL, as the system does for want of memory. "
        "The same command goes on from its last snapshot"
    )
    assert isinstance(ended[short.name], Record)


def test_a_worker_that_cannot_begin_is_said_with_its_exit_code(tmp_path, bench):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    with as_python(script):
        ended = list(Processes(2).run(tiny_jobs(tmp_path), bench, lambda job: Observer()))
    with as_python(tmp_path / "nowhere"):
        without = list(Processes(2).run(tiny_jobs(tmp_path), bench, lambda job: Observer()))
    said = "its process could not begin: it ended with exit code 3; what it said stands above"
    assert [result for _, result in ended] == [said] * 2 and len(without) == 2


def test_what_a_user_must_mend_ends_the_grid_from_a_worker_too(tmp_path, bench):
    (bench.results / "work").mkdir(parents=True)
    (first, _) = jobs = tiny_jobs(tmp_path)
    (bench.results / "work" / first.name).write_text("no folder")
    with pytest.raises(UserError, match="Choose another folder"):
        list(Processes(1).run(jobs, bench, lambda job: Observer()))


def test_a_grid_of_which_every_cell_failed_ends_with_1(call, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no luck")

    monkeypatch.setattr("ddpm_bench.experiment.launchers.launcher.run_cell", fail)
    answer = call(*ablate(tmp_path, 1)[3:])
    assert answer.code == 1 and answer.err.count("FAILED: RuntimeError: no luck") == 2
    assert "holds no records" not in answer.err


# ---- whole commands -------------------------------------------------------------------------------------------------


@pytest.fixture
def training(tmp_path):
    """Start `ablate` in a process group of its own; it is handed over once so many cells train."""
    started = []

    def start(*more, cells=2):
        command = ablate(tmp_path, 2, *more)
        parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(parent)
        deadline = time.monotonic() + 300
        while len(list((tmp_path / "results" / "work").glob("*/.owner.held"))) < cells:
            assert parent.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        return parent

    yield start
    for parent in started:
        if parent.poll() is None:
            parent.kill()
        parent.communicate()


def gone(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(true, seconds: float) -> float:
    """Seconds until it was."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def test_workers_end_with_their_parent_and_the_next_command_takes_over(tmp_path, training, call):
    results, parent = tmp_path / "results", training(*LONG)
    works = list((results / "work").iterdir())
    workers = [process_of(work) for work in works]
    second = call(*ablate(tmp_path, 1, *LONG)[3:])
    assert second.code == 2 and f"'{results}' is in use by process {parent.pid} on " in second.err
    parent.send_signal(signal.SIGKILL)
    wait_until(lambda: all(map(gone, workers)), 5)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with owned(results), owned(works[0], 5), owned(works[1], 5):  # free as soon as they are gone
        time.sleep(0.5)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} <= written.keys()


def test_interrupted_in_the_middle_all_save_and_the_same_command_finishes(tmp_path, training):
    steps = [
        word for each in ("training.steps=150", "training.checkpoint_every=150", *PLAIN) for word in ("--set", each)
    ]
    parent = training(*steps)
    os.killpg(parent.pid, signal.SIGTERM)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 130 and "the same command goes on" in said
    assert "Traceback" not in said and "FAILED" not in said
    snapshots = list((tmp_path / "results" / "work").glob("*/step-*/state.json"))
    second = subprocess.run(ablate(tmp_path, 2, *steps), capture_output=True, text=True, check=True)
    assert len(snapshots) == 2 and second.stderr.count("going on at step") == 2 and "leaked" not in second.stderr
    assert len(read_records(tmp_path / "results")) == 2


@pytest.mark.parametrize("when", ["begins", "works"])
def test_ctrl_c_twice_ends_everything_in_seconds(when, training, tmp_path):
    parent = training(*LONG, cells=2 if when == "works" else 0)
    if when == "begins":  # the processes of the workers are there, and import
        wait_until(lambda: len(children(parent.pid)) >= 3, 300)
    workers = children(parent.pid)
    os.killpg(parent.pid, signal.SIGINT)
    os.killpg(parent.pid, signal.SIGINT)
    began = time.monotonic()
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 130 and time.monotonic() - began < 20
    assert "Traceback" not in said and "FAILED" not in said
    wait_until(lambda: all(map(gone, workers)), 5)


def children(process: int) -> list[int]:
    with open(f"/proc/{process}/task/{process}/children", encoding="utf-8") as stream:
        return [int(word) for word in stream.read().split()]
