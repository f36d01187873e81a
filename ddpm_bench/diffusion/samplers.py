"""How x_0 is drawn: a sampler is one step of a chain (`step.py`); the loop is here, once.

    ancestral   x_{t-1} = mean + sigma_t z, with z = 0 at t = 1                                              (Algorithm 2)

The others are in `ddim.py`, `score_samplers.py` and `annealed_langevin.py`. The last step returns its mean, and the result is
rounded to uint8. A strided chain is the same loop over a respaced denoiser.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ddpm_bench.data.codec import PIXELS, Codec
from ddpm_bench.diffusion.annealed_langevin import AnnealedLangevin
from ddpm_bench.diffusion.augmentation import noised
from ddpm_bench.diffusion.ddim import DDIM, SigmaHat
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import CASCADE, SAMPLING, BlockNoise, batches
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.sample_labels import SampleLabels
from ddpm_bench.diffusion.schedule import Schedule
from ddpm_bench.diffusion.score_samplers import AncestralSDE, Langevin, ProbabilityFlow, ReverseDiffusion
from ddpm_bench.diffusion.step import Denoised, Sampler
from ddpm_bench.errors import NotFinite, UserError
from ddpm_bench.networks.condition import Condition
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
class Below:
    """What a chain of a cascade has below it: the chain that draws the small images, and how they are shown.

    level: of the noise that is added to them, 0..T of `schedule`, that of the chain above with all its steps; None where its network
    is told no level, and there is none.
    """

    chain: "Chain"
    schedule: Schedule
    level: int | None = None


@dataclass(frozen=True)
class Chain:
    """All that decides which images come from which noise: what a model is sampled and scored by.

    labels: of a model that is told classes, or guided to them; None for any other. below: of a cascade; None for any other.
    """

    denoiser: Denoiser
    sampler: Sampler = ANCESTRAL
    codec: Codec = PIXELS
    labels: SampleLabels | None = None
    below: Below | None = None

    def told(self, first: int, count: int, device: torch.device) -> "Chain":
        """The chain of the samples first..first+count-1, whose classes the network is told where it has any, and a classifier guides
        to where there is one."""
        if self.labels is None:
            return self
        labels = self.labels.at(first, count).to(device)
        denoiser = self.denoiser.given(Condition(labels)) if self.labels.told else self.denoiser
        return replace(self, denoiser=denoiser.toward(labels))

    def shown(self, images: Tensor, first: int, seed: int) -> "Chain":
        """The chain that enlarges these images, uint8 (B, C, h, w) on the device, which are number first..first+B-1."""
        told = Condition() if self.denoiser.condition is None else self.denoiser.condition
        level, z = None, self.codec.encode(images)
        if self.below is not None and self.below.level is not None:
            level = torch.full((len(z),), self.below.level, device=z.device)
            noise = BlockNoise(seed, first, len(z), tuple(z.shape[1:]), z.device, stream=self.stream + 1)
            z = noised(self.below.schedule, z, level, noise.draw())
        return replace(self, denoiser=self.denoiser.given(replace(told, small=z, level=level)))

    @property
    def height(self) -> int:
        """Chains below."""
        return 0 if self.below is None else self.below.chain.height + 1

    @property
    def stream(self) -> int:
        """Of its noise; see `noise.py`."""
        return CASCADE + 2 * self.height if self.height else SAMPLING

    @property
    def steps(self) -> int:
        """Steps that are made for an image, those of the chains below among them."""
        return self.T + (self.below.chain.steps if self.below else 0)

    @property
    def T(self) -> int:
        """Number of steps."""
        return self.denoiser.T

    @property
    def network_calls(self) -> int:
        """For an image, by all networks."""
        below = self.below.chain.network_calls if self.below else 0
        return below + self.sampler.network_calls(self.T) * self.denoiser.calls

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
    runtime = runtime or Runtime()
    with progress("sampling", first + count, "images", first) as meter:
        for done, size in ranks.mine(batches(count, runtime.network_batch(chain.denoiser.shape[1]))):
            steps = itertools.count(1)

            def step(
                now: Denoised | None, begin: int = first + done, size: int = size, steps: Iterator[int] = steps
            ) -> None:
                if watch is not None and now is not None:
                    watch(begin, now)
                meter.update(begin + size * next(steps) // chain.steps)

            # Outside of inference mode: the caller may write into it.
            yield first + done, _drawn(chain, first + done, size, seed, runtime, step).cpu().clone()


def _drawn(
    chain: Chain, first: int, count: int, seed: int, runtime: Runtime, step: Callable[[Denoised | None], None]
) -> Tensor:
    """The samples first..first+count-1 in one batch, uint8 on the device; of a cascade one chain after the other, from below.

    step: hears of each step, but of one below no more than that it was made.
    """
    noise = BlockNoise(seed, first, count, chain.denoiser.shape, runtime.device, stream=chain.stream)
    told = chain.told(first, count, runtime.device)
    if chain.below:
        small = _drawn(chain.below.chain, first, count, seed, runtime, lambda now: step(None))
        told = told.shown(small, first, seed)
    x_T = told.sampler.begin(told.denoiser, noise.draw())
    for now in told.denoise(x_T, chain.T, noise):
        step(now)
    return chain.codec.decode(now.x)


def check_single(chain: Chain, what: str) -> None:
    """UserError for a cascade where what is asked for is of one chain, whose x_T or x_t determines the image."""
    if chain.below:
        raise UserError(
            f"{what} is of a single chain, and this is a cascade of {chain.height + 1}: its images follow from the small ones, too. Ask "
            "it of the model of the smallest images."
        )
