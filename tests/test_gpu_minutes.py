"""`ddpm-bench gpu`: stages within the minutes, what ends well is not done again, and the command as a whole."""

import json
import os
import shlex
import signal
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import command_of
from tiny_models import tiny_data, tiny_preset

from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.speed import machine, measure, report, run
from ddpm_bench.speed.gpu import session, stages
from ddpm_bench.speed.gpu.session import Session, in_a_process
from ddpm_bench.speed.gpu.stages import STAGES, Plan


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is told."""
    now = [0.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    return now


class Machine:
    """Runs no command: each takes so many seconds on the clock, `takes` or else 1, and ends with `codes` or else 0."""

    def __init__(self, clock, **takes: float) -> None:
        self.clock, self.takes, self.codes = clock, takes, {}
        self.ran, self.limits = [], {}

    def __call__(self, words, log, seconds):
        stage = log.stem
        self.ran.append(shlex.join(words))
        self.limits.setdefault(stage, seconds)
        taken = self.takes.get(stage, 1.0)
        self.clock[0] += min(taken, seconds)
        if stage == "training":
            (log.parent.parent / "training" / "step-000001").mkdir(parents=True, exist_ok=True)
        if stage == "study":
            (log.parent.parent / "results" / "work" / "eps-mse-fixed-seed0" / "step-1").mkdir(
                parents=True, exist_ok=True
            )
        return None if taken > seconds else self.codes.get(stage, 0)


def outcomes(one: Session) -> dict[str, str]:
    return {each.name: each.outcome for each in one.stages(STAGES)}


def session_of(plan: Plan, machine: Machine, minutes: float = 9) -> Session:
    return Session(replace(plan, minutes=minutes), machine)


# ---- within the minutes ----------------------------------------------------------------------------------------------


def test_all_stages_run_in_order_and_what_one_leaves_over_is_the_next_ones(clock, tmp_path) -> None:
    machine = Machine(clock)
    one = session_of(Plan(tmp_path), machine)
    assert outcomes(one) == dict.fromkeys(STAGES, "done")
    assert list(machine.limits) == list(STAGES)
    assert machine.limits["tests"] == pytest.approx(STAGES["tests"].share * one.usable_s)
    assert machine.limits["precision"] == pytest.approx(one.usable_s - (len(machine.ran) - 1))


def test_time_is_kept_for_later_stages_and_a_stage_that_does_not_fit_is_not_begun_and_named(clock, tmp_path) -> None:
    machine = Machine(clock, speed=1e9, study=1e9, training=1e9)
    found = outcomes(one := session_of(Plan(tmp_path), machine))
    assert [name for name, outcome in found.items() if outcome == "stopped"] == ["speed", "study", "training"]
    assert found["precision"] == "done" and clock[0] <= one.until
    clock[0] = 0
    short = session_of(Plan(tmp_path / "short"), machine, minutes=1)
    named = {each.name: each.why for each in short.stages(STAGES) if each.outcome == "not begun"}
    assert "speed" in named and "for want of time" in named["speed"] and clock[0] <= 60


def test_what_ended_well_is_not_done_again_and_what_was_stopped_goes_on(clock, tmp_path) -> None:
    first, second = Machine(clock, study=1e9), Machine(clock)
    outcomes(session_of(Plan(tmp_path), first))
    clock[0] = 0
    found = outcomes(again := session_of(Plan(tmp_path), second))
    assert [name for name, outcome in found.items() if outcome == "done"] == ["study"]
    assert len(second.ran) == 1 and second.ran[0] in first.ran
    assert second.limits["study"] == pytest.approx(again.usable_s)  # nothing else needs it


def test_a_stage_that_fails_is_said_and_the_others_go_on(clock, tmp_path) -> None:
    machine = Machine(clock)
    machine.codes = {"tests": 1, "speed": 1, "small": 1}
    one = session_of(Plan(tmp_path), machine)
    found = outcomes(one)
    assert (found["tests"], found["small"], found["study"]) == ("failed", "failed", "done")
    why = {each.name: each.why for each in one.results}["small"]
    assert "exit code 1" in why and "small.log" in why
    assert sum(f"speed --preset {Plan.preset} " in words for words in machine.ran) == 2  # both works were tried


def test_a_stage_without_the_checkpoint_that_it_needs_is_not_begun(clock, tmp_path) -> None:
    found = list(session_of(Plan(tmp_path), Machine(clock)).stages(["sampling"]))
    assert found[0].outcome == "not begun" and "no checkpoint" in found[0].why


def test_after_a_stop_nothing_more_is_begun(clock, tmp_path) -> None:
    machine = Machine(clock)
    with Stop(()) as stop:
        one = session_of(Plan(tmp_path), machine)
        found = []
        for each in one.stages(STAGES):
            found.append(each.outcome)
            stop.requested = True
    assert found == ["done", *["not begun"] * (len(STAGES) - 1)]


# ---- a process -------------------------------------------------------------------------------------------------------

SAVES = """
import pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
def save(*_):
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit(130)
signal.signal(signal.SIGTERM, {handler})
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(60)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that waits for a minute, with a child: it saves when it is asked to, or does not listen."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(handler: str):
        (tmp_path / "waits.py").write_text(SAVES.format(handler=handler))
        return "waits", str(tmp_path / "said")

    return make


def test_a_command_whose_time_is_up_saves(module, tmp_path) -> None:
    began = time.monotonic()
    assert in_a_process(module("save"), tmp_path / "log", 2) is None
    assert (tmp_path / "said").read_text() == "saved" and time.monotonic() - began < 10


def test_a_command_is_asked_to_save_when_a_stop_is_asked_for(module, tmp_path) -> None:
    with Stop(()) as stop:
        timer = threading.Timer(1.5, lambda: setattr(stop, "requested", True))
        timer.start()
        assert in_a_process(module("save"), tmp_path / "log", 60) is None
    assert (tmp_path / "said").read_text() == "saved"


def test_a_command_that_does_not_listen_is_ended_with_its_children(module, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(session, "GRACE_S", 0.2)
    assert in_a_process(module("signal.SIG_IGN"), tmp_path / "log", 1.5) is None
    child = int((tmp_path / "said").read_text())
    for _ in range(50):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":  # nobody has asked for its end
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child lives on")


def test_the_exit_code_and_what_was_said_are_kept(tmp_path) -> None:
    assert in_a_process(("json.tool", str(tmp_path / "gone")), tmp_path / "log", 30) not in (0, None)
    assert b"gone" in (tmp_path / "log").read_bytes()


# ---- the command -----------------------------------------------------------------------------------------------------


def in_this_process(words, log, seconds):
    """The command line itself, without the start of a process."""
    assert words[0] == "ddpm_bench"
    chosen, rest = command_of(list(words[1:]))
    chosen.main(rest, standalone_mode=False)
    return 0


ONE_CELL = """
name = "one"
title = "Nothing is asked"
source = "a test"
[conditions]
data = "cifar10"
size = 32
samples = 50000
extractor = "inception"
checkpoint = "last"
[[cell]]
name = "eps-mse-fixed"
group = "epsilon"
label = "L_simple"
parameterization = "eps"
objective = "L_simple"
variance = "fixed-beta"
published = {}
"""


@pytest.fixture
def toy(call, tmp_path, monkeypatch):
    """The command at toy size, its stages in this process."""
    monkeypatch.setattr(run, "installed", lambda peer: False)
    monkeypatch.setattr(run, "PRECISIONS", {"cpu": ("float32",)})
    monkeypatch.setattr(measure, "SHORTEST", 0.0)
    monkeypatch.setitem(machine.SHAPES, "cpu", (1, ((4, 8),), 16))
    monkeypatch.setattr(report, "draw", lambda speed, path: path)
    monkeypatch.setattr(session.Session.__init__, "__defaults__", (in_this_process,))
    preset = tiny_preset(tmp_path, tiny_data(tmp_path / "images.npz"))
    (tmp_path / "one.toml").write_text(ONE_CELL)
    monkeypatch.setattr(stages, "GRID", str(tmp_path / "one.toml"))
    those = "speed,study,training,sampling,precision"
    monkeypatch.setattr("torch.compile", lambda function: function)
    monkeypatch.setattr("torch.nn.Module.compile", lambda self, **_: None)
    return lambda *more: call(
        "gpu", "--minutes", 5, "--preset", preset, "--grid-preset", preset, "--seeds", "0", "--workers", 1, "--device", "cpu",
        "--stages", those, "--out", tmp_path / "gpu", *more,
    )  # fmt: skip


def test_all_of_it_at_toy_size_and_again_with_nothing_left_to_do(toy, tmp_path) -> None:
    answer = toy("--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out[answer.out.rindex('{\n  "minutes"') :])
    assert {stage["name"]: stage["outcome"] for stage in found["stages"]} == dict.fromkeys(
        ("speed", "study", "training", "sampling", "precision"), "done"
    )
    assert all(goal["measured"] for goal in found["goals"][:2]) and found["goals"][2]["measured"] is None
    with zipfile.ZipFile(tmp_path / "gpu" / "gpu.zip") as held:
        names = held.namelist()
    assert {
        "precision/precision.json",
        "results/eps-mse-fixed-seed0.json",
        "sampling/samples.npz",
        "logs/training.log",
    } < set(names)
    assert not any(name.endswith(".safetensors") for name in names) and "There is no GPU" in answer.err
    again = toy()
    assert again.code == 0 and again.out.count("done before") == 5
    assert "no GPU" in again.err and "numbers of none" in again.out


def test_an_unknown_stage_is_refused(toy) -> None:
    answer = toy("--stages", "study,sped")
    assert answer.code == 2 and "did you mean 'speed'" in answer.err
