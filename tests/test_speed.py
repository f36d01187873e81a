"""Speed: contenders do the work they are named for, peaks and shares are right, and the report says what has to be known."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_models import tiny_preset
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_bench import data
from ddpm_bench.networks.unet import UNet
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.device import float32_as
from ddpm_bench.speed import machine, measure, run, shares
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.machine import memory_of, peak
from ddpm_bench.speed.peers import OURS, PEERS, Diffusers, installed
from ddpm_bench.speed.report import TerminalReport, page, write
from ddpm_bench.speed.result import WORKS, Peak, Phase, Ratio, Speed, Timing
from ddpm_bench.speed.work import Contender, plain_training, trainer_of

CPU = torch.device("cpu")


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
