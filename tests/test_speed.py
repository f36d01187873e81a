"""Speed: contenders do the work they are named for, ratios and shares are right, and the code for a GPU is sound."""

import importlib.util
import io
import json
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_models import tiny_preset
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_bench import data
from ddpm_bench.errors import UserError
from ddpm_bench.networks.unet import UNet
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.device import choose_device, float32_as
from ddpm_bench.runtime.observer import noting
from ddpm_bench.speed import entrant, machine, measure, processes, run, shares
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.entrant import Elsewhere, enter
from ddpm_bench.speed.machine import memory_of, peak
from ddpm_bench.speed.measure import race, ratio
from ddpm_bench.speed.peers import OURS, PEERS, Diffusers, installed
from ddpm_bench.speed.report import TerminalReport, page, write
from ddpm_bench.speed.result import WORKS, Peak, Phase, Ratio, Speed, Timing, Work
from ddpm_bench.speed.work import Contender, plain_training, trainer_of
from ddpm_bench.training.ema import Ema

CPU = torch.device("cpu")
PLAIN = {"dynamic": False}
"""How a network is compiled."""


@pytest.fixture
def preset(tmp_path):
    return tiny_preset(tmp_path)


@pytest.fixture
def case(preset):
    return Case.of(preset, None, CPU)


# ---- what is measured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "batch", "shape"), [("paper", 16, (3, 32, 32)), ("quick", 64, (1, 16, 16))])
def test_a_case_is_the_presets_network_and_a_batch_that_a_cpu_can_take(name, batch, shape) -> None:
    case = Case.of(name, None, CPU)
    assert (case.batch, case.shape) == (batch, shape)
    assert Case.of(name, 3, CPU).batch == 3
    assert case.eval_batch == batch


def test_on_a_gpu_a_case_has_the_batches_of_a_cell(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (2**37, 2**37))
    case = Case.of("paper", None, torch.device("cuda"))
    assert (case.batch, case.eval_batch) == (128, 512)
    assert [case.batch_of(work) for work in WORKS] == [128, 512, 512]


def test_diffusers_has_as_many_parameters_and_does_the_same_but_for_our_cheap_upsampling() -> None:
    """Ours costs 4 products where a convolution of the doubled image, 48 channels of 16x16, costs 9."""
    case, parameters, flops = Case.of("quick", 1, CPU), set(), []
    x, step = torch.zeros(1, 1, 16, 16), torch.zeros(1, dtype=torch.int64)
    for peer in (OURS, Diffusers()):
        network = peer.network(case).eval()
        parameters.add(sum(p.numel() for p in network.parameters()))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(x, step)
        flops.append(counter.get_total_flops())
    assert len(parameters) == 1
    assert flops[1] - flops[0] == pytest.approx(2 * 48**2 * (9 - 4) * 16**2, rel=0.02)


@pytest.mark.parametrize("peer", [OURS, *PEERS], ids=lambda peer: peer.name)
@pytest.mark.parametrize("work", ["training", "sampling", "bound"])
def test_every_contender_can_do_every_work_again_and_again(work, peer, case, tmp_path) -> None:
    if not installed(peer):
        pytest.skip(f"{peer.name} is not installed")
    call = Contender(peer, "float32").call(work, case, tmp_path)
    flops = []
    for _ in range(case.diffusion.schedule.T + 2):  # beyond the end of a chain
        with FlopCounterMode(display=False) as counter:
            call()
        flops.append(counter.get_total_flops())
    assert 0 < min(flops) == max(flops)


TRANSFORMER = "[network]\nkind = 'dit'\ndepth = 2\nwidth = 40\nheads = 2\npatch = 4\n"


@pytest.fixture
def transformer(preset):
    """The tiny preset with a transformer."""
    path = Path(preset)
    path.write_text(re.sub(r"\[network\].*(?=\[training\])", TRANSFORMER, path.read_text(), flags=re.DOTALL))
    return preset


@pytest.mark.parametrize("work", ["training", "sampling"])
def test_diffusers_transformer_does_what_ours_does_but_embeds_the_step_in_every_block(
    work, transformer, tmp_path
) -> None:
    case, flops = Case.of(transformer, None, CPU), []
    for peer in (OURS, Diffusers()):
        call = Contender(peer, "float32").call(work, case, tmp_path)
        with FlopCounterMode(display=False) as counter:
            call()
        flops.append(counter.get_total_flops() / case.batch_of(work))
    embedding = 2 * (256 * 40 + 40 * 40)
    assert 1.5 * embedding < flops[1] - flops[0] < 6.5 * embedding  # twice more, thrice as much each in training


def test_a_package_without_such_a_network_is_said_and_left_out(transformer, monkeypatch) -> None:
    monkeypatch.setattr(measure, "SHORTEST", 0.0)
    monkeypatch.setitem(machine.SHAPES, "cpu", (1, ((4, 8),), 16))
    found = run.measure(transformer, device=CPU, repeats=2, precision="float32", works=["training", "sampling"])
    assert {row.contender for row in found.rows} == {"ddpm-bench", "diffusers"} and found.missing == {}
    assert "denoising-diffusion-pytorch has no network of the kind 'dit' and was not measured." in found.remarks


def test_the_plain_loop_trains(case) -> None:
    network = OURS.network(case)
    before = network.last.weight.detach().clone()
    step = plain_training(case, network.eval())
    step()
    once = network.last.weight.detach().clone()
    step()
    assert network.training
    assert not torch.equal(before, once) and not torch.equal(once, network.last.weight)


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


# ---- the machine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_peaks_are_the_operations_that_torch_counts_by_the_shortest_time_in_the_dtype(monkeypatch, precision, dtype):
    monkeypatch.setitem(machine.SHAPES, "cpu", (3, ((4, 8), (16, 5)), 16))
    rates, dtypes = [], set()

    def seconds_of(work, device):
        with FlopCounterMode(display=False) as counter:
            dtypes.add(work().dtype)
        rates.append(counter.get_total_flops() / (seconds := 2.0 + len(rates) % 2))
        return seconds

    monkeypatch.setattr(machine, "seconds_of", seconds_of)
    found = peak(CPU, precision, 2)
    assert found == Peak(precision=precision, matmul=rates[0], convolution=max(rates[2], rates[4])) and len(rates) == 6
    assert dtypes == {dtype} and rates[2] != rates[4]


def test_memory_is_what_a_call_adds() -> None:
    if (held := memory_of(lambda: torch.ones(2**27).sum(), CPU)) is None:
        pytest.skip("this system does not tell")
    assert 0.8 * 2**29 < held < 2 * 2**29
    # Gone again, and no part of what comes next; an allocator may have kept a little of it, and the next call takes that.
    assert memory_of(lambda: torch.ones(2**24).sum(), CPU) < 2 * 2**26


def test_float32_precision_is_put_back() -> None:
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    with float32_as("tf32"):
        assert backend.fp32_precision == "tf32"
    assert backend.fp32_precision == before


# ---- where the time goes ---------------------------------------------------------------------------------------------


def test_marks_add_up_and_belong_to_their_part(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(shares.time, "perf_counter", lambda: now[0])

    def takes(seconds):
        now[0] += seconds

    marks, network = shares.Marks(CPU, "other"), nn.Identity()
    marks.network(network, "loss and backward")
    network.register_forward_pre_hook(lambda *_: takes(5))
    takes(1)
    marks.around(lambda: (takes(2), network(torch.zeros(1)), takes(3)), "loss and backward", "data")()
    takes(4)
    assert marks.parts() == {"other": 1, "loss and backward": 5, "network": 5, "data": 4}


def test_phases_cover_training_sampling_bound_and_scoring_of_the_real_code(case, monkeypatch) -> None:
    few = data.load_data(case.settings.data)
    few = replace(few, train=data.Split(few.train.images[:32]))
    monkeypatch.setattr(data, "load_data", lambda settings: few)
    found = {phase.name: phase for phase in shares.phases(case)}
    assert list(found) == ["training", "sampling", "bound", "scoring"]
    assert {"network", "loss and backward", "optimizer and average", "data"} <= found["training"].parts.keys()
    assert all(phase.parts["network"] > 0 for phase in found.values())


def test_where_only_images_take_time_a_cell_takes_what_all_its_images_through_the_network_take(case, monkeypatch):
    now, real = [0.0], UNet.forward
    monkeypatch.setattr(shares.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(shares, "scoring", lambda case: None)

    def forward(self, x_t, step):
        now[0] += len(x_t)
        return real(self, x_t, step)

    monkeypatch.setattr(UNet, "forward", forward)
    training, sampling, bound, _ = shares.phases(case)
    settings, T = case.settings, case.diffusion.schedule.T
    assert training.cell_seconds == pytest.approx(settings.training.steps * settings.training.batch)
    assert sampling.cell_seconds == pytest.approx(settings.sampling.samples * T)
    assert bound.cell_seconds == pytest.approx(2 * settings.scoring.bound_images * settings.scoring.bound_evals)
    assert [phase.share("network") for phase in (training, sampling, bound)] == [1, 1, 1]


def test_most_of_a_training_step_of_quick_is_network_loss_and_optimizer(tmp_path) -> None:
    """A share, not a time, with room for a busy machine; `ddpm-bench speed` measures it properly."""
    case = Case.of("quick", 16, CPU)
    trainer = trainer_of(case, OURS.network(case), tmp_path, case.runtime)
    assert shares.training(case, trainer).share("network", "loss and backward", "optimizer and average") > 0.8


# ---- the report ------------------------------------------------------------------------------------------------------


def result(**changes) -> Speed:
    def row(work, name, ours, **more) -> Timing:
        held = {"equal_work": True, "precision": "float32", "batch": 4, "seconds": (1.0, 2.0, 4.0), "flops": 1e9}
        held |= {"memory": 2**20, "compile_seconds": None, "peak": 8e9}
        return Timing(work=work, contender=name, ours=ours, **(held | more))

    faster = Ratio(median=1.25, low=1.0, high=2.0, coverage=0.97)
    rows = [row(work, "ddpm-bench", None) for work in ("training", "sampling", "bound")]
    rows.insert(1, row("training", "other*[b]", faster, equal_work=False, memory=None, compile_seconds=3.0))
    phase = Phase(name="training", parts={"data": 1.0, "network": 3.0}, cell_seconds=3600)
    sampling = Phase(name="sampling", parts={"network": 1.0}, cell_seconds=3600)
    scoring = Phase(name="scoring", parts={"metrics": 1.0}, cell_seconds=9e9)
    held = {
        "preset": "tiny", "parameters": 1234, "shape": (1, 16, 16), "repeats": 3, "rows": tuple(rows), "peaks": (),
        "phases": (phase, sampling, scoring), "missing": {"gone": "pip install ddpm-bench[peers]"}, "remarks": (),
        "hardware": {"processor": "P", "threads": 1, "cores": 2}, "versions": {}, "git_commit": None, "created": "now",
    }  # fmt: skip
    return Speed(**(held | changes))


def test_numbers_derived_from_times_are_in_the_json_too(tmp_path) -> None:
    write(result(), tmp_path)
    held = json.loads((tmp_path / "speed.json").read_text())
    assert held["rows"][0]["images_per_s"] == 2 and held["rows"][0]["flops_per_s"] == 2e9
    assert held["rows"][0]["peak_fraction"] == 0.25
    assert held["counted_share"] == pytest.approx((0.75 + 1) / 2)  # scoring is none of it
    assert Speed.model_validate(held) == result()
    assert {path.name for path in tmp_path.iterdir()} == {"speed.json", "speed.md", "speed.png", "speed.pdf"}


def test_the_page_says_what_has_to_be_known(tmp_path) -> None:
    shown = re.sub(r"\\([\[\]*_])", r"\1", to_markdown(page(result())))  # as a code host shows it
    assert "1.25 [1.00, 2.00] times as fast" in shown and "probability of 97%" in shown
    assert "Another network" in shown and "gone is not installed" in shown and "3 s to compile" in shown
    assert "| training | 75.0% |" in shown


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_table_fits_and_reads_no_markup(width) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(TerminalReport(result()))
    text = console.export_text()
    assert "[b]" in text and max(map(len, text.splitlines())) <= width and "1.25" in text


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
