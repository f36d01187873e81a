"""Out of memory: in sampling and scoring the same images are done again, fewer at a time; in training nothing is changed."""

import os
import subprocess
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL
from diffusion_cases import SHORT, chain_of, some_network
from torch import Tensor

from ddpm_bench.diffusion.chains import interpolate, progressive
from ddpm_bench.diffusion.objective import L, LSimple
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import Chain, sample
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.errors import OutOfMemory
from ddpm_bench.experiment.launchers.launcher import FAILURES
from ddpm_bench.likelihood import bits_per_dim, estimate_bits_per_dim
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.metrics.features import features_of
from ddpm_bench.runtime.batch import Halving, training_batch
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.trainer import Trainer

CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
)
ERRORS = [CPU, MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")]
IMAGES = torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
AT_ONCE = Runtime(batch=16)


class Narrow:
    """A network with memory for so many images; notes how many it was called with."""

    def __init__(self, holds: int, error: Exception = CPU) -> None:
        self.holds, self.error, self.calls = holds, error, []

    def __call__(self, x: Tensor, step: Tensor) -> Tensor:
        self.calls.append(len(x))
        if len(x) > self.holds:
            raise self.error
        return some_network()(x, step)


def chain(network) -> Chain:
    return chain_of(Diffusion(SHORT, Eps(), FixedBeta()), network)


def drawn(network) -> Tensor:
    return torch.cat([images for _, images in sample(chain(network), count=20, seed=3, runtime=AT_ONCE)])


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_same_samples_are_drawn_with_half_the_images_a_call_and_each_halving_is_said_once(error, messages, capsys):
    narrow = Narrow(5, error)
    assert torch.equal(drawn(narrow), drawn(some_network()))
    said = [line for line in capsys.readouterr().err.splitlines() if "memory" in line]
    halvings = [(16, 8), (8, 4)]
    assert said == [f"out of memory with {a} images a call; going on with {b}" for a, b in halvings]
    assert narrow.calls[:6] == [16, 8, 4, 4, 4, 4] and max(narrow.calls[2:]) == 4


def everything(network) -> list[Tensor]:
    """Whatever calls a network outside training."""
    at = chain(network)
    whole = bits_per_dim(at, IMAGES, seed=1, runtime=AT_ONCE)
    about = estimate_bits_per_dim(at, IMAGES, evals=7, seed=1, runtime=AT_ONCE)
    way = progressive(at, count=20, at=[20, 10, 0], seed=1, runtime=AT_ONCE)
    between = interpolate(at, IMAGES[:2], 9, [i / 10 for i in range(11)], seed=1, runtime=AT_ONCE)
    return [whole.total, whole.terms, whole.mse, about.total, about.variance, way, between]


def test_bounds_and_pictures_are_the_same_too():
    for one, other in zip(everything(Narrow(3)), everything(some_network()), strict=True):
        assert torch.equal(one, other)


def test_features_are_measured_with_fewer_images_a_call_and_none_is_lost(tmp_path, messages, capsys):
    extractor = load_extractor("embedded", size=16, cache=tmp_path)
    images = torch.randint(0, 256, (40, 1, 16, 16), dtype=torch.uint8)
    network = extractor.network

    class NarrowExtractor(torch.nn.Module):
        def forward(self, batch: Tensor):
            if len(batch) > 9:
                raise CPU
            return network(batch)

    narrow = replace(extractor, network=NarrowExtractor(), batch=32)
    assert torch.allclose(features_of(images, narrow, Runtime()), features_of(images, extractor, Runtime()), atol=1e-5)
    assert "out of memory with 32 images a call; going on with 16" in capsys.readouterr().err


def test_one_image_that_does_not_fit_is_an_error_that_costs_the_cell():
    with pytest.raises(OutOfMemory, match="with a single image") as failed:
        drawn(Narrow(0))
    assert isinstance(failed.value, FAILURES)


def test_another_error_is_not_taken_for_memory():
    narrow = Narrow(5, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        drawn(narrow)
    assert narrow.calls == [16]


def test_what_the_failed_call_had_made_is_freed_before_the_next_one():
    made = []

    def network(x: Tensor) -> Tensor:
        assert all(reference() is None for reference in made)
        activations = torch.zeros(len(x), 10)
        made.append(weakref.ref(activations))
        if len(x) > 3:
            raise RuntimeError(*CPU.args)  # a new one: an error that is kept keeps the frames that it passed through
        return x

    assert torch.equal(torch.cat(list(Halving().parts(network, torch.arange(10)))), torch.arange(10))
    assert len(made) == 7  # 10, 5, then five of 2


@pytest.mark.parametrize("objective", [L(), LSimple()], ids=lambda objective: objective.name)
def test_training_never_takes_fewer_images(objective):
    narrow = Narrow(5)
    x0 = IMAGES.float() / 127.5 - 1
    with pytest.raises(RuntimeError, match="can't allocate"):
        objective(chain(narrow).denoiser, x0, torch.ones(20, dtype=torch.int64), torch.randn(x0.shape))
    assert narrow.calls == [20]


def test_out_of_memory_in_training_fails_the_cell_and_names_the_setting(call, monkeypatch, tmp_path):
    def fails(_: Trainer) -> None:
        raise CPU

    monkeypatch.setattr(Trainer, "train_step", fails)
    small = ("--preset", "smoke", *SMALL, "--device", "cpu")
    where = ("--results", tmp_path / "results", "--cache", tmp_path / "cache", "--no-report")
    grid = call("ablate", *small, "--cells", "mu-L-fixed", "--workers", "1", *where)
    assert grid.code and "FAILED: OutOfMemory: training ran out of memory with training.batch = 16" in grid.err
    assert "part of the experiment" in grid.err and "Traceback" not in grid.err
    alone = call("train", "--cell", "mu-L-fixed", *small, "--out", tmp_path / "out")
    assert alone.code == 1 and alone.err.splitlines()[-1].startswith("ddpm-bench: training ran out of memory")


def test_another_error_of_training_stays_as_it_is():
    with pytest.raises(RuntimeError, match="shapes"), training_batch(16):
        raise RuntimeError("shapes do not fit")


def test_on_a_gpu_the_memory_is_given_back_before_the_next_call(monkeypatch):
    emptied = []
    fake = SimpleNamespace(is_initialized=lambda: True, empty_cache=lambda: emptied.append(True))
    monkeypatch.setattr(torch, "cuda", fake)
    list(Halving().parts(Narrow(2), torch.zeros(8, 1, 1, 1), torch.zeros(8)))
    assert len(emptied) == 2


LIMITED = """
import resource, sys, torch
from torch import nn
from ddpm_bench import Chain, Denoiser, Diffusion, Eps, FixedBeta, Runtime, linear, sample
from ddpm_bench.runtime.terminal import at_the_terminal

torch.set_num_threads(1)
torch.manual_seed(0)
inside = nn.Sequential(nn.Conv2d(1, 128, 3, padding=1), nn.SiLU(), nn.Conv2d(128, 1, 3, padding=1))
chain = Chain(Denoiser(Diffusion(linear(2, 0.1, 0.5), Eps(), FixedBeta()), lambda x, t: inside(x), (1, 16, 16)))
with torch.inference_mode():
    inside(torch.zeros(1, 1, 16, 16))
if int(sys.argv[1]):
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit = now + int(sys.argv[1]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with at_the_terminal():
    print(*(int(images.sum()) for _, images in sample(chain, count=1024, seed=0, runtime=Runtime(batch=1024))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process so")
def test_the_error_of_the_real_allocator_is_the_one_that_is_caught():
    # One activation of 1024 images takes 128 MiB; a second arena of malloc would take as much of the address space.
    one_arena = os.environ | {"MALLOC_ARENA_MAX": "1"}
    free, limited = (
        subprocess.run([sys.executable, "-c", LIMITED, mib], capture_output=True, text=True, env=one_arena)
        for mib in ("0", "120")
    )
    assert (free.returncode, free.stderr) == (0, "")
    assert limited.returncode == 0, limited.stderr
    assert "out of memory with 1024 images a call; going on with 512" in limited.stderr
    assert int(limited.stdout) == pytest.approx(int(free.stdout), abs=100)  # of 32 million levels: rounding
