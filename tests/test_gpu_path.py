"""The code for a GPU, as far as a CPU shows it, and the preset for half an hour on one."""

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_preset
from torch.utils._python_dispatch import TorchDispatchMode

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.samplers import Chain, sample
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.networks.unet import UNet
from ddpm_bench.records import provenance
from ddpm_bench.runtime.batch import default_batch
from ddpm_bench.runtime.device import choose_device
from ddpm_bench.runtime.recorded import launched_one_by_one
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.peers import OURS
from ddpm_bench.speed.work import trainer_of

CPU = torch.device("cpu")
needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture
def case(tmp_path):
    return Case.of(tiny_preset(tmp_path), None, CPU)


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
    trainer = trainer_of(case, OURS.network(case), tmp_path, case.runtime)
    trainer.train_step()
    with NoReading():
        trainer.train_step()


def test_a_sampling_step_never_waits_for_the_device(case) -> None:
    chain = Chain(case.denoiser(OURS.network(case)))
    noise = BlockNoise(0, 0, 4, case.shape, CPU)
    steps = chain.denoise(noise.draw(), chain.T, noise)
    next(steps)
    with NoReading():
        next(steps)


def small(in_bfloat16: bool | None) -> UNet:
    torch.manual_seed(0)
    network = UNet(1, 1, 16, UNetSettings(base=16, multipliers=(1, 2), blocks=1, attention=(8,), groups=8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    network.in_bfloat16 = in_bfloat16
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
        facts = provenance.hardware(choose_device("cuda"))
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


@needs_a_gpu
def test_on_a_gpu_both_precisions_predict_alike_and_samples_repeat(case) -> None:
    gpu = choose_device("cuda")
    x, step = torch.randn(2, 1, 16, 16, device=gpu), torch.tensor([0, 500], device=gpu)
    with torch.no_grad():
        plain, exact, rounded = (small(each).to(gpu)(x, step) for each in (None, False, True))
        on_the_cpu = small(False)(x.cpu(), step.cpu())
    assert torch.equal(plain, rounded) and 0 < (exact - rounded).abs().max() < 0.05 * exact.abs().max()
    assert (exact.cpu() - on_the_cpu).abs().max() < 1e-4 * on_the_cpu.abs().max()
    network = OURS.network(case).to(gpu)
    runtime = replace(case.runtime, device=gpu)
    one, again = (torch.cat([images for _, images in sample(Chain(case.denoiser(network)), count=8, seed=0, runtime=runtime)])
                  for _ in range(2))  # fmt: skip
    assert torch.equal(one, again) and one.float().std() > 0


@needs_a_gpu
def test_on_a_gpu_replayed_training_and_samples_are_those_of_plain_calls(case, tmp_path) -> None:
    runtime, trained, drawn = replace(case.runtime, device=choose_device("cuda"), precision="float32"), [], []
    for way in (launched_one_by_one, contextlib.nullcontext):
        torch.manual_seed(0)
        trainer = trainer_of(case, OURS.network(case), tmp_path / way.__name__, runtime)
        with way():
            for _ in range(6):
                trainer.train_step()
            chain = Chain(case.denoiser(trainer.network))
            drawn.append(torch.cat([images for _, images in sample(chain, count=8, seed=0, runtime=runtime)]))
        trained.append(torch.cat([parameter.detach().flatten() for parameter in trainer.network.parameters()]))
    assert trained[0].isfinite().all() and (trained[0] - trained[1]).abs().max() < 1e-5
    assert (drawn[0].int() - drawn[1].int()).abs().max() <= 1  # a level: sums of gradients may be of another order


@needs_a_gpu
def test_on_a_gpu_a_compiled_network_trains_as_a_plain_one(case, tmp_path) -> None:
    settings = case.settings.network.model_copy(update={"dropout": 0.0})  # compiled, masks are drawn otherwise
    case = replace(case, settings=case.settings.model_copy(update={"network": settings}))
    means = []
    for compiled in (False, True):
        runtime = replace(case.runtime, device=choose_device("cuda"), precision="float32", compiled=compiled)
        torch.manual_seed(0)
        trainer = trainer_of(case, OURS.network(case), tmp_path / str(compiled), runtime)
        for _ in range(5):  # called, recorded, replayed
            trainer.train_step()
        means.append(trainer._means.cpu())
    torch.testing.assert_close(*means, rtol=1e-3, atol=0)


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
    from ddpm_bench.config.preset import load_preset, resolve
    from ddpm_bench.config.shipped import load_grid

    cells = [resolve(cell, load_preset("h200"), {}) for cell in load_grid("table2").cells]
    assert len(cells) == 6
    assert all(cell.network == UNetSettings() and cell.training == cells[0].training for cell in cells)
    assert cells[0].training.steps * cells[0].training.batch / 5000 == pytest.approx(90, rel=0.02)
    assert cells[0].diffusion.T == 1000 and cells[0].sampling.steps is None and cells[0].scoring.bound_evals == 10
