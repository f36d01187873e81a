"""How x_0 is drawn: a sampler is one step of a chain (`step.py`); the loop is here, once.

    ancestral   x_{t-1} = mean + sigma_t z, with z = 0 at t = 1                                              (Algorithm 2)

The others are in `ddim.py`, `score_samplers.py` and `annealed_langevin.py`. The last step returns its mean, and the result is
rounded to uint8. A strided chain is the same loop over a respaced denoiser.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ddpm_bench.data.codec import PIXELS, Codec
from ddpm_bench.diffusion.annealed_langevin import AnnealedLangevin
from ddpm_bench.diffusion.ddim import DDIM, SigmaHat
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BlockNoise, batches
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.sample_labels import SampleLabels
from ddpm_bench.diffusion.score_samplers import AncestralSDE, Langevin, ProbabilityFlow, ReverseDiffusion
from ddpm_bench.diffusion.step import Denoised, Sampler
from ddpm_bench.errors import NotFinite
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.runtime import Runtime


@dataclass(frozen=True)
class Ancestral(Sampler):
    """A draw of p(x_{t-1} | x_t); its mean where t = 1."""

    name: ClassVar[str] = "ancestral"
    clips: ClassVar[bool] = True
    uses_variance: ClassVar[bool] = True
    takes_mean: ClassVar[bool] = True

    def check(self, diffusion: Diffusion) -> None:
        """It samples every one."""

    def remarks(self, diffusion: Diffusion, clip_x0: bool) -> tuple[str, ...]:
        """It uses all of the diffusion, and whether x_0 is clipped stands with every result."""
        return ()

    def step(self, denoiser: Denoiser, x_t: Tensor, t: int, noise: BlockNoise) -> Denoised:
        reverse = denoiser(x_t, t)
        z = noise.draw()
        x = reverse.mean if t == 1 else reverse.mean + torch.exp(0.5 * reverse.log_variance) * z
        return Denoised(t, reverse.x0, x.to(x_t.dtype))


ANCESTRAL = Ancestral()
SAMPLERS: dict[str, type[Sampler]] = {
    sampler.name: sampler
    for sampler in (
        Ancestral,
        DDIM,
        SigmaHat,
        AncestralSDE,
        ReverseDiffusion,
        ProbabilityFlow,
        Langevin,
        AnnealedLangevin,
    )
}


@dataclass(frozen=True)
class Chain:
    """All that decides which images come from which noise: what a model is sampled and scored by.

    labels: of a model that is told classes, or guided to them; None for any other.
    """

    denoiser: Denoiser
    sampler: Sampler = ANCESTRAL
    codec: Codec = PIXELS
    labels: SampleLabels | None = None

    def told(self, first: int, count: int, device: torch.device) -> "Chain":
        """The chain of the samples first..first+count-1, whose classes the network is told where it has any, and a classifier guides
        to where there is one."""
        if self.labels is None:
            return self
        condition, denoiser = self.labels.condition(first, count, device), self.denoiser
        denoiser = denoiser.given(condition) if self.labels.told else denoiser
        return replace(self, denoiser=denoiser.toward(condition.labels))

    @property
    def T(self) -> int:
        """Number of steps."""
        return self.denoiser.T

    @property
    def network_calls(self) -> int:
        """For an image."""
        return self.sampler.network_calls(self.T) * self.denoiser.calls

    @torch.inference_mode()
    def denoise(self, x_t: Tensor, t: int, noise: BlockNoise) -> Iterator[Denoised]:
        """The reverse process from x_t (B, C, H, W) down to x_0, steps t..1; modules are in evaluation mode meanwhile.

        `noise`: of B samples, or of one that all share. Raises Interrupted between two steps when a stop was asked for,
        and NotFinite for an x_0 that is no image: rounding to uint8 would hide it.
        """
        with self.denoiser.evaluating():
            for now in range(t, 0, -1):
                check_stop()
                done = self.sampler.step(self.denoiser, x_t, now, noise)
                x_t = done.x
                if now == 1 and (bad := int((~x_t.isfinite()).flatten(1).any(1).sum())):
                    raise NotFinite(f"{bad} of {len(x_t)} samples are not finite (NaN or infinity)")
                yield done


OnStep = Callable[[int, Denoised], None]
"""watch(first, done): a step of the samples first..first+B-1."""


def sample(
    chain: Chain,
    *,
    count: int,
    seed: int,
    first: int = 0,
    runtime: Runtime | None = None,
    watch: OnStep | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """The samples with indices first..first+count-1, batch by batch: (index of its first one, uint8 (b, C, H, W), CPU).

    A sample's noise depends only on `seed` and its index, so another batch or `first` gives the same images up to float
    rounding, as where memory runs out and the network is called with fewer images. Of several ranks that work together each
    draws every N-th batch. Raises Interrupted between two steps: what was handed over before is complete.
    """
    runtime, shape, T = runtime or Runtime(), chain.denoiser.shape, chain.T
    with progress("sampling", first + count, "images", first) as meter:
        for done, size in ranks.mine(batches(count, runtime.network_batch(shape[1]))):
            noise = BlockNoise(seed, first + done, size, shape, runtime.device)
            told = chain.told(first + done, size, runtime.device)
            x_T = told.sampler.begin(told.denoiser, noise.draw())
            for now in told.denoise(x_T, T, noise):
                if watch is not None:
                    watch(first + done, now)
                meter.update(first + done + size * (T + 1 - now.t) // T)
            # Outside of inference mode: the caller may write into it.
            yield first + done, chain.codec.decode(now.x).cpu().clone()
