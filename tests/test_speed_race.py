"""The race of contenders: ratios are right, in one process and in several, and what is not measured is said."""

import importlib.util
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_speed import CPU, case, preset, result
from torch import nn

from ddpm_bench.errors import UserError
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.device import choose_device
from ddpm_bench.runtime.observer import noting
from ddpm_bench.speed import entrant, machine, measure, processes, run
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.entrant import Elsewhere, enter
from ddpm_bench.speed.measure import race, ratio
from ddpm_bench.speed.peers import OURS, Diffusers, installed
from ddpm_bench.speed.report import page, write
from ddpm_bench.speed.result import Ratio, Timing, Work
from ddpm_bench.speed.work import Contender
from ddpm_bench.training.ema import Ema

__all__ = ["case", "preset"]  # fixtures

PLAIN = {"dynamic": False}
"""How a network is compiled."""


# ---- rounds and ratios -----------------------------------------------------------------------------------------------


def test_ratio_is_the_median_over_rounds_with_the_interval_of_the_sign_test() -> None:
    rounds = [1.0] * 11
    found = ratio(rounds, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    assert (found.median, found.low, found.high) == (6, 2, 10)
    assert found.coverage == pytest.approx(1 - 2 * (1 + 11) / 2**11)
    few = ratio([1, 1], [2, 4])
    assert (few.median, few.low, few.high, few.coverage) == (3, 2, 4, 0.5)


def test_ratio_pairs_times_of_the_same_round() -> None:
    assert ratio([1, 10, 100], [2, 20, 200]) == Ratio(median=2, low=2, high=2, coverage=0.75)


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        times = rng.lognormal(0, 0.5, 9)
        found = ratio([1.0] * 9, times.tolist())
        hits += found.low <= 1 <= found.high
    assert hits / 1000 == pytest.approx(found.coverage, abs=0.02)


def raced(work: Work, contenders: Sequence[Contender], case: Case, repeats: int = 2) -> list[Timing]:
    return run._raced(work, contenders, case, repeats)


def test_a_race_is_interleaved_and_begins_with_another_contender_each_round(case, monkeypatch) -> None:
    called = []

    class Fake(Contender):
        def call(self, work, case, folder):
            return lambda: called.append(self.precision)

    clock = iter(range(1, 10_000))
    monkeypatch.setattr(entrant, "seconds_of", lambda call, device, calls=1: (call(), float(next(clock)))[1])
    racers = [Fake(OURS, name) for name in ("float32", "tf32", "bfloat16")]
    rows = raced("training", racers, case, repeats=3)
    assert called[-9:] == ["float32", "tf32", "bfloat16", "tf32", "bfloat16", "float32", "bfloat16", "float32", "tf32"]
    assert [len(row.seconds) for row in rows] == [3, 3, 3]
    assert [row.ours is None for row in rows] == [True, False, False]


def test_a_compiled_contender_says_what_compiling_took(case, monkeypatch) -> None:
    used = []

    def compile_(self, **options):
        used.append(options)
        self._compiled_call_impl = self._call_impl

    monkeypatch.setattr(nn.Module, "compile", compile_)
    (row,) = raced("bound", [Contender(OURS, "float32", "compiled")], case)
    assert row.compile_seconds > 0 and row.contender == "ddpm-bench, compiled" and used == [PLAIN]


def test_the_average_of_a_compiled_network_is_compiled_too(case, monkeypatch) -> None:
    used = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: used.append(options))
    network = OURS.network(case)
    Ema(network, 0.5, False).network()
    assert not used
    network._compiled_call_impl = network._call_impl
    Ema(network, 0.5, False).network()
    assert used == [PLAIN]


def test_what_cannot_be_compiled_is_said_before_anything_starts(monkeypatch) -> None:
    def broken(*_):
        raise RuntimeError("backend raised:\nno compiler")

    monkeypatch.setattr("torch.compile", lambda function: broken)
    with pytest.raises(UserError, match=r"--compile.*no compiler"):
        choose_device("cpu", compiled=True)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_measure_names_peers_that_are_missing_and_measures_the_others(preset, monkeypatch) -> None:
    real = importlib.util.find_spec
    gone = "denoising_diffusion_pytorch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == gone else real(name, *a))
    monkeypatch.setattr(measure, "SHORTEST", 0.0)
    monkeypatch.setitem(machine.SHAPES, "cpu", (1, ((4, 8),), 16))
    monkeypatch.setattr(run, "phases", lambda case: [])
    found = run.measure(preset, device=CPU, repeats=2)
    assert {row.contender for row in found.rows} == {"ddpm-bench", "diffusers"} and len(found.rows) == 12
    assert {row.precision for row in found.rows} == {"float32", "bfloat16"}
    assert found.missing == {"denoising-diffusion-pytorch": "pip install ddpm-bench[peers]"}
    assert found.parameters == sum(p.numel() for p in OURS.network(Case.of(preset, None, CPU)).parameters())
    peaks = {peak.precision: peak.convolution for peak in found.peaks}
    assert all(row.peak == peaks[row.precision] for row in found.rows)


def test_every_precision_of_a_gpu_is_measured_of_ours_and_of_the_others_and_what_graphs_and_compiling_bring() -> None:
    found = run.contenders(torch.device("cuda"), None, compiled=True, peers=[Diffusers()])
    assert [(each.name, each.precision) for each in found] == [
        ("ddpm-bench", "bfloat16"), ("ddpm-bench, compiled", "bfloat16"), ("ddpm-bench, without CUDA graphs", "bfloat16"),
        ("ddpm-bench", "tf32"), ("ddpm-bench", "float32"),
        ("diffusers", "bfloat16"), ("diffusers", "tf32"), ("diffusers", "float32"),
    ]  # fmt: skip
    assert {each.precision for each in run.contenders(torch.device("cuda"), "float32", False)} == {"float32"}


def test_both_precisions_of_a_cpu_are_measured_and_no_graphs_there() -> None:
    found = run.contenders(CPU, None, compiled=True, peers=[])
    assert [(each.name, each.precision) for each in found] == [
        ("ddpm-bench", "float32"), ("ddpm-bench, compiled", "float32"), ("ddpm-bench", "bfloat16"),
    ]  # fmt: skip


@pytest.mark.parametrize("peer", [OURS, Diffusers()], ids=lambda peer: peer.name)
def test_a_contender_in_bfloat16_computes_in_it_and_its_weights_stay_float32(peer, case, tmp_path, monkeypatch) -> None:
    if not installed(peer):
        pytest.skip(f"{peer.name} is not installed")
    dtypes, network = set(), peer.network(case)
    monkeypatch.setattr(type(peer), "network", lambda self, case: network)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, given, made: dtypes.add(made.dtype))
    Contender(peer, "bfloat16").call("training", case, tmp_path)()
    assert torch.bfloat16 in dtypes and {p.dtype for p in network.parameters()} == {torch.float32}


def test_one_that_cannot_is_said_and_left_out_but_ours_must(case, monkeypatch) -> None:
    class Broken(Contender):
        def call(self, work, case, folder):
            raise RuntimeError("no kernel\nfor this")

    with noting() as notes:
        rows = raced("bound", [Contender(OURS, "float32"), Broken(OURS, "bfloat16")], case)
    assert [row.precision for row in rows] == ["float32"]
    assert notes == ["bound: ddpm-bench in bfloat16 does not run here and was not timed ('no kernel for this')."]
    with pytest.raises(RuntimeError, match="no kernel"):
        raced("bound", [Broken(OURS, "float32")], case)


def test_only_the_work_that_is_asked_for_is_measured_and_drawn(preset, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(measure, "SHORTEST", 0.0)
    monkeypatch.setattr(run, "installed", lambda peer: False)
    monkeypatch.setitem(machine.SHAPES, "cpu", (1, ((4, 8),), 16))
    found = run.measure(preset, device=CPU, repeats=2, precision="float32", works=["sampling"])
    assert [row.work for row in found.rows] == ["sampling"] and found.phases == () and found.counted_share is None
    write(found, tmp_path / "out")
    assert (tmp_path / "out" / "speed.pdf").exists()


# ---- several processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def threads_for_processes(monkeypatch):
    """Threads of this process take the place of processes, which take seconds to begin."""

    class Thread(threading.Thread):
        def __init__(self, target, args, daemon):
            *others, pipe = args  # of which a process has its own copy
            super().__init__(target=target, args=(*others, Connection(os.dup(pipe.fileno()))), daemon=daemon)

        def kill(self):
            self.join()

    context = SimpleNamespace(Process=Thread, Pipe=lambda: Pipe())
    monkeypatch.setattr(entrant.multiprocessing, "get_context", lambda how: context)
    monkeypatch.setattr(entrant, "signal", SimpleNamespace(signal=lambda *_: None, SIGINT=2, SIG_IGN=1))
    monkeypatch.setattr(processes, "WINDOW_S", 0.01)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 1)


def test_each_number_of_processes_works_together_and_is_told(case, threads_for_processes, monkeypatch) -> None:
    windows = []
    monkeypatch.setattr(entrant, "_rate", lambda call, device, seconds: (call(), windows.append(seconds), 10.0)[2])
    found = processes.race_together("training", Contender(OURS, "float32"), case, [2, 3])
    assert [(row.processes, row.rates) for row in found] == [
        (count, (10.0 * count * case.batch,) * processes.ROUNDS) for count in (1, 2, 3)
    ]
    assert len(windows) == processes.ROUNDS * (1 + 2 + 3) and found[2].images_per_s == 30 * case.batch
    shown = to_markdown(page(result(together=tuple(found))))
    assert "Several processes on the device" in shown and "| 3 |" in shown


def test_on_a_gpu_each_contender_has_a_process_and_all_warm_up_side_by_side(
    case, threads_for_processes, monkeypatch
) -> None:
    class Broken(Contender):
        def call(self, work, case, folder):
            raise RuntimeError("no kernel for this")

    racers = [Contender(OURS, "float32"), Contender(Diffusers(), "float32"), Broken(OURS, "bfloat16")]
    begun = [Elsewhere("sampling", each, case) for each in racers]
    with noting() as notes:
        rows = race("sampling", begun, case, repeats=2)
    for each in begun:
        each.end()
    assert [row.contender for row in rows] == ["ddpm-bench", "diffusers"] and "no kernel" in notes[0]
    (here,) = raced("sampling", racers[:1], case)
    assert rows[0].flops == here.flops and len(rows[0].seconds) == 2 and min(rows[0].seconds) > 0
    monkeypatch.setattr(entrant, "Elsewhere", lambda *given: "elsewhere")
    assert enter("sampling", racers[0], replace(case, device=torch.device("cuda"))) == "elsewhere"


def test_a_process_that_dies_is_said_and_the_others_end(case, threads_for_processes, monkeypatch) -> None:
    def die(work, contender, case, parent):
        parent.close()

    monkeypatch.setattr(entrant, "_obey", die)
    with noting() as notes:
        assert run._together("training", Contender(OURS, "float32"), case, [2]) == []
    assert "has died" in notes[0]


def test_the_rate_is_calls_by_the_time_that_they_took(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(entrant.time, "perf_counter", lambda: now[0])

    def takes():
        now[0] += 0.4

    assert entrant._rate(takes, CPU, 1.0) == pytest.approx(3 / 1.2)


def test_tf32_is_refused_where_there_is_none(preset) -> None:
    with pytest.raises(UserError, match="--dtype tf32"):
        run.measure(preset, device=CPU, precision="tf32")


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--work", "trainings"), "did you mean 'training'"), (("--processes", "0,2"), "--processes 0")],
)
def test_what_cannot_be_timed_is_refused_by_name(call, preset, options, said) -> None:
    answer = call("speed", "--preset", preset, "--device", "cpu", *options)
    assert answer.code == 2 and said in answer.err
