"""The bound of a split, as a record holds it."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusion_cases import SHORT, some_network
from torch import Tensor, nn

from ddpm_bench.config.networks import NetworkSettings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.data.images import ImageData, Split
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.variance import FixedBeta, LearnedDiagonal, Variance
from ddpm_bench.files import write_json
from ddpm_bench.likelihood import bits_per_dim
from ddpm_bench.measurement.bounds import BoundMethod, measure_bound, spread_over
from ddpm_bench.models.model import Model
from ddpm_bench.runtime.runtime import Runtime

PROCESS = ProcessSettings(parameterization="eps", variance="fixed")


class Module(nn.Module):
    """A plain function as a network."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        return self.function(x, step)


def model(function: Callable[[Tensor, Tensor], Tensor], variance: Variance) -> Model:
    return Model(
        "plain", Module(function), NetworkSettings(kind="plain"), PROCESS, Diffusion(SHORT, Eps(), variance), (1, 2, 2),
        weights="ema", weights_sha256="0", step=None, sampling=SamplingSettings(), identity={},
    )  # fmt: skip


def data(count: int) -> ImageData:
    pixels = torch.randint(0, 256, (count, 1, 2, 2), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    return ImageData("dots", Split(pixels, None), Split(pixels, None), sha256="0", classes=())


def test_no_more_calls_than_steps(tmp_path: Path) -> None:
    """Where the chain is no longer than the budget, every t is evaluated, and the result says so."""
    plain, dots = model(some_network(), FixedBeta()), data(6)
    how = {"images": 6, "seed": 0, "decoder": "paper"}
    found = measure_bound(plain, dots, "test", BoundMethod(evals=20, **how), Runtime(batch=8), tmp_path)
    assert (found.method, found.evals, found.images, found.decoder) == ("exact", 20, 6, "paper")
    assert found.total == pytest.approx(found.prior + found.middle + found.first, rel=1e-12)
    assert found.first == found.terms[0]
    assert len(found.mse) == SHORT.T
    assert found.sampling_error == found.standard_error
    few = measure_bound(plain, dots, "train", BoundMethod(evals=19, **how), Runtime(batch=8), tmp_path)
    assert (few.method, few.evals, few.terms) == ("estimate", 19, ())
    assert few.standard_error > 0 < few.estimate_error
    assert 0 < few.own_error < few.estimate_error
    low, high = few.interval
    assert high - low == pytest.approx(2 * 1.959964 * few.standard_error)


def test_a_bound_that_is_not_finite_is_a_result(tmp_path: Path) -> None:
    """A learned variance of 0 makes the bound infinite; the record says so in strict JSON."""
    broken = model(lambda x, step: torch.cat([x, torch.full_like(x, -3000.0)], 1), LearnedDiagonal())
    method = BoundMethod(images=4, evals=10, seed=0)
    found = measure_bound(broken, data(4), "test", method, Runtime(batch=4), tmp_path)
    assert not math.isfinite(found.total)
    write_json(tmp_path / "bound.json", found.as_json())
    held = type(found).model_validate(json.loads((tmp_path / "bound.json").read_text()))
    assert repr(held) == repr(found)


def test_a_part_of_a_split_is_spread_over_it() -> None:
    assert spread_over(torch.arange(10), 5).tolist() == [0, 2, 4, 6, 8]
    assert spread_over(torch.arange(3), 5).tolist() == [0, 1, 2]


def test_the_bound_of_a_strided_chain_is_that_of_the_model_with_so_many_steps(tmp_path: Path) -> None:
    """Of every step kept it is the whole chain's; of some, that of a denoiser that knows only these."""
    plain, dots = model(some_network(), FixedBeta()), data(4)
    method = BoundMethod(images=4, evals=None, seed=0)
    whole = measure_bound(plain, dots, "test", method, Runtime(batch=4), tmp_path)
    every = replace(method, kept=tuple(range(1, plain.T + 1)))
    assert measure_bound(plain, dots, "test", every, Runtime(batch=4), tmp_path).total == pytest.approx(whole.total)
    few = measure_bound(plain, dots, "test", replace(method, kept=(1, 9, 20)), Runtime(batch=4), tmp_path)
    assert (few.steps, few.evals, len(few.terms), whole.steps) == (3, 3, 3, None)
    chain = plain.whole_chain(clip_x0=True)
    strided = replace(chain, denoiser=chain.denoiser.respaced([1, 9, 20]))
    assert few.total == pytest.approx(float(bits_per_dim(strided, dots.test.images[:4], seed=0).total.mean()))
