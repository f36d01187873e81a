"""Speed: contenders do the work they are named for, ratios and shares are right, and the code for a GPU is sound."""

import importlib.util
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ddpm_bench import data, provenance
from ddpm_bench.batch import default_batch
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.sampler import denoise
from ddpm_bench.errors import UserError
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.network.unet import UNet
from ddpm_bench.settings import NetworkSettings
from ddpm_bench.speed import machine, measure, run, shares
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.machine import float32_as, memory_of, peak
from ddpm_bench.speed.measure import race, ratio
from ddpm_bench.speed.peers import OURS, PEERS, Diffusers, installed
from ddpm_bench.speed.report import TerminalReport, to_markdown, write
from ddpm_bench.speed.result import WORKS, Phase, Ratio, Row, Speed
from ddpm_bench.speed.work import Contender, plain_training, trainer_of
from ddpm_bench.training.ema import Ema

CPU = torch.device("cpu")
TINY = """
[data]
source = "embedded"
size = 16
[diffusion]
T = 6
beta_1 = 0.05
beta_T = 0.7
[network]
base = 4
multipliers = [1, 2]
blocks = 1
attention = [8]
groups = 2
[training]
steps = 10
batch = 4
checkpoint_every = 5
[sampling]
samples = 12
[scoring]
extractor = "embedded"
bound_images = 4
bound_evals = 5
"""


@pytest.fixture
def preset(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


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
    with FlopCounterMode(display=False) as counter:
        for _ in range(case.diffusion.schedule.T + 2):  # beyond the end of a chain
            call()
    assert counter.get_total_flops() > 0


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


def test_a_race_is_interleaved_and_begins_with_another_contender_each_round(case, monkeypatch) -> None:
    called = []

    class Fake(Contender):
        def call(self, work, case, folder, compiled=None):
            return lambda: called.append(self.precision)

    clock = iter(range(1, 10_000))
    monkeypatch.setattr(measure, "seconds_of", lambda call, device, calls=1: (call(), float(next(clock)))[1])
    monkeypatch.setattr(measure, "_quick", lambda entrant, case: 1.0)
    racers = [Fake(OURS, name) for name in ("float32", "tf32", "bfloat16")]
    rows = race("training", racers, case, repeats=3)
    assert called[-9:] == ["float32", "tf32", "bfloat16", "tf32", "bfloat16", "float32", "bfloat16", "float32", "tf32"]
    assert [len(row.seconds) for row in rows] == [3, 3, 3]
    assert [row.ours is None for row in rows] == [True, False, False]


def test_a_compiled_contender_says_what_compiling_took(case, monkeypatch) -> None:
    used = []

    def compile_(self, **options):
        used.append(options)
        self._compiled_call_impl = self._call_impl

    monkeypatch.setattr(nn.Module, "compile", compile_)
    (row,) = race("bound", [Contender(OURS, "float32", compiled=True)], case, repeats=2)
    assert row.compile_seconds > 0 and row.contender == "ddpm-bench, compiled" and used == [{"dynamic": False}]


def test_the_average_of_a_compiled_network_is_compiled_too(case, monkeypatch) -> None:
    used = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: used.append(options))
    network = OURS.network(case)
    Ema(network, 0.5, False).network()
    assert not used
    network._compiled_call_impl = network._call_impl
    Ema(network, 0.5, False).network()
    assert used == [{"dynamic": False}]


def test_what_cannot_be_compiled_is_said_before_anything_starts(monkeypatch) -> None:
    def broken(*_):
        raise RuntimeError("backend raised:\nno compiler")

    monkeypatch.setattr("torch.compile", lambda function: broken)
    with pytest.raises(UserError, match=r"--compile.*no compiler"):
        provenance.choose_device("cpu", compiled=True)


# ---- the machine -----------------------------------------------------------------------------------------------------


def test_peaks_are_positive_and_of_the_dtype(monkeypatch) -> None:
    seen = []
    monkeypatch.setitem(machine.SHAPES, "cpu", (1, ((4, 8),), 16))
    real = torch.nn.functional.conv2d
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda x, *a, **k: seen.append(x.dtype) or real(x, *a, **k))
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        found = peak(CPU, precision, 2)
        assert found.matmul > 0 and found.convolution > 0 and seen[-1] == dtype


def test_memory_is_what_a_call_adds() -> None:
    if (held := memory_of(lambda: torch.ones(2**24).sum(), CPU)) is None:
        pytest.skip("this system does not tell")
    assert 0.8 * 2**26 < held < 2 * 2**26


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
    assert all(phase.cell_seconds > 0 and phase.share(*phase.parts) == pytest.approx(1) for phase in found.values())
    assert all(phase.parts["network"] > 0 for phase in found.values())


def test_most_of_a_training_step_of_quick_is_network_loss_and_optimizer(tmp_path) -> None:
    """A share, not a time, with room for a busy machine; `ddpm-bench speed` measures it properly."""
    case = Case.of("quick", 16, CPU)
    trainer = trainer_of(case, OURS.network(case), tmp_path)
    assert shares.training(case, trainer).share("network", "loss and backward", "optimizer and average") > 0.8


# ---- the report ------------------------------------------------------------------------------------------------------


def result(**changes) -> Speed:
    def row(work, name, ours, **more) -> Row:
        held = {"equal_work": True, "precision": "float32", "batch": 4, "seconds": (1.0, 2.0, 4.0), "flops": 1e9}
        held |= {"memory": 2**20, "compile_seconds": None, "peak": 8e9}
        return Row(work=work, contender=name, ours=ours, **(held | more))

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
    page = to_markdown(result())
    assert "1.25 [1.00, 2.00] times as fast" in page and "probability of 97%" in page
    assert "Another network" in page and "gone is not installed" in page and "3 s to compile" in page
    assert "| training | 75.0% |" in page


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
    monkeypatch.setattr(run, "phases", lambda case, stop: [])
    found = run.measure(preset, device=CPU, repeats=2)
    assert {row.contender for row in found.rows} == {"ddpm-bench", "diffusers"} and len(found.rows) == 6
    assert found.missing == {"denoising-diffusion-pytorch": "pip install ddpm-bench[peers]"}
    assert found.parameters == sum(p.numel() for p in OURS.network(Case.of(preset, None, CPU)).parameters())
    assert all(row.peak_fraction > 0 for row in found.rows)


def test_on_a_gpu_the_others_are_measured_in_each_precision_and_ours_in_its_own() -> None:
    found = run.contenders(torch.device("cuda"), None, compiled=True, peers=[Diffusers()])
    assert [(each.name, each.precision) for each in found] == [
        ("ddpm-bench", "bfloat16"), ("ddpm-bench, compiled", "bfloat16"),
        ("diffusers", "bfloat16"), ("diffusers", "tf32"), ("diffusers", "float32"),
    ]  # fmt: skip
    assert {each.precision for each in run.contenders(torch.device("cuda"), "float32", False)} == {"float32"}


def test_tf32_is_refused_where_there_is_none(preset) -> None:
    with pytest.raises(UserError, match="--dtype tf32"):
        run.measure(preset, device=CPU, precision="tf32")


# ---- code for a GPU, as far as a CPU shows it ------------------------------------------------------------------------


class NoReading(TorchDispatchMode):
    """Refuses what would make a GPU's host wait: reading a value, or a shape that depends on values."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert not any(name.startswith(read) for read in self.READS), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("waits", [lambda x: x.item(), lambda x: bool(x > 0), lambda x: x[x > 0]])
def test_no_reading_notices_what_waits(waits) -> None:
    with pytest.raises(AssertionError, match="waits for the device"), NoReading():
        waits(torch.ones(()))


def test_a_training_step_never_waits_for_the_device(case, tmp_path) -> None:
    trainer = trainer_of(case, OURS.network(case), tmp_path)
    trainer._train_step()
    with NoReading():
        trainer._train_step()


def test_a_sampling_step_never_waits_for_the_device(case) -> None:
    network = OURS.network(case)
    noise = BlockNoise(0, 0, 4, case.shape, CPU)
    steps = denoise(case.diffusion, network, noise.draw(), case.diffusion.schedule.T, noise, clip_x0=True)
    next(steps)
    with NoReading():
        next(steps)


def small(half: bool | None) -> UNet:
    torch.manual_seed(0)
    network = UNet(1, 1, 16, NetworkSettings(base=16, multipliers=(1, 2), blocks=1, attention=(8,), groups=8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    network.half = half
    return network.eval()


def test_half_computes_in_bfloat16_with_float32_weights_predictions_and_gradients() -> None:
    x, step = torch.randn(2, 1, 16, 16), torch.tensor([0, 500])
    exact, rounded = small(False), small(True)
    kinds = []
    rounded.middle[0].conv1.register_forward_hook(lambda module, given, out: kinds.append(out.dtype))
    a, b = exact(x, step), rounded(x, step)
    assert kinds == [torch.bfloat16] and b.dtype == torch.float32
    assert 0 < (a - b).abs().max() < 0.05 * a.abs().max()
    b.square().mean().backward()
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in rounded.parameters())


def test_on_a_cpu_nothing_is_rounded_unless_asked_for_even_inside_autocast() -> None:
    network, kinds = small(None), []
    network.middle[0].conv1.register_forward_hook(lambda module, given, out: kinds.append(out.dtype))
    x, step = torch.randn(2, 1, 16, 16), torch.tensor([0, 500])
    with torch.no_grad():
        plain = network(x, step)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(plain, network(x, step))
    assert kinds == [torch.float32] * 2


def test_choosing_a_gpu_makes_float32_exact_and_is_recorded(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "a GPU")
    switches = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before, benchmark = [switch.fp32_precision for switch in switches], torch.backends.cudnn.benchmark
    try:
        for switch in switches:
            switch.fp32_precision = "tf32"
        facts = provenance.hardware(provenance.choose_device("cuda"))
        assert (facts["float32_convolutions"], facts["float32_products"]) == ("ieee", "ieee")
        assert facts["cudnn_benchmark"] is True and "bfloat16" in facts["networks"]
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision
        torch.backends.cudnn.benchmark = benchmark


def test_the_batch_follows_free_memory_on_a_gpu_and_the_size_of_images(monkeypatch) -> None:
    assert [default_batch(CPU, side) for side in (16, 32, 64, 256, 1024)] == [128, 128, 32, 2, 1]
    gpu, free = torch.device("cuda"), [0]
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free[0], 2**37))
    batches = []
    for free[0] in (2**37, 2**33, 2**31, 2**20):
        batches.append(default_batch(gpu, 32))
    assert batches == [512, 128, 32, 1]
    free[0] = 2**33
    assert default_batch(gpu, 64) == 32


def test_an_extractor_takes_the_largest_batch_that_fits_on_a_gpu(monkeypatch, tmp_path) -> None:
    extractor = load_extractor("embedded", cache=tmp_path)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (2**33, 2**37))
    assert extractor.batch_on(CPU) == 256
    assert extractor.batch_on(torch.device("cuda")) == 1024
    assert replace(extractor, image_bytes=32 * 2**20).batch_on(torch.device("cuda")) == 128
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (2**20, 2**37))
    assert extractor.batch_on(torch.device("cuda")) == 1


# ---- the preset for half an hour on a GPU ----------------------------------------------------------------------------


def test_the_preset_h200_runs_from_a_folder_of_images_with_an_extractor_of_its_own(call, tmp_path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for index in range(16):
            path = tmp_path / "images" / split / "ab"[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    images = ["--data", f"folder:{tmp_path / 'images'}"]
    extractor = tmp_path / "cifar10-jpeg.safetensors"
    trained = call(
        "extractor", "train", *images, "--name", "cifar10-jpeg", "--out", extractor, "--sizes", "32", "--epochs", "1",
        "--device", "cpu",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    small = [
        "diffusion.T=4", "network.base=4", "network.multipliers=[1,2]", "network.blocks=1", "network.groups=2",
        "training.steps=2", "training.batch=4", "training.checkpoint_every=1", "sampling.samples=12",
        "scoring.bootstrap=0", "scoring.bound_images=4", "scoring.bound_evals=5", "scoring.terms_images=2",
        "scoring.neighbours=0",
    ]  # fmt: skip
    command = [
        "ablate", "--preset", "h200", *images, "--data-name", "cifar10-jpeg", "--extractor", extractor,
        "--device", "cpu", "--cells", "mu-L-learned", "--workers", "1", "--results", tmp_path / "results",
        "--reports", tmp_path / "report", "--cache", tmp_path / "cache", "--json",
    ]  # fmt: skip
    answer = call(*command, *(part for each in small for part in ("--set", each)))
    assert answer.code == 0, answer.err
    records = json.loads(answer.out)
    assert [record["cell"] for record in records] == ["mu-L-learned"]
    assert all(r["data"]["name"] == r["extractor"]["name"] == "cifar10-jpeg" and r["preset"] == "h200" for r in records)
    assert (tmp_path / "report" / "report.md").exists()


def test_the_preset_h200_has_six_cells_of_the_papers_network_with_equal_steps() -> None:
    from ddpm_bench.grid import load_grid, load_preset, resolve

    cells = [resolve(cell, load_preset("h200"), {}) for cell in load_grid("table2").cells]
    assert len(cells) == 6
    assert all(cell.network == NetworkSettings() and cell.training == cells[0].training for cell in cells)
    assert cells[0].training.steps * cells[0].training.batch / 5000 == pytest.approx(90, rel=0.02)
    assert cells[0].diffusion.T == 1000 and cells[0].sampling.steps is None and cells[0].scoring.bound_evals == 10
