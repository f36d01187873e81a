"""All randomness of training: every draw of a step is a function of the seed and the step's number alone.

So a run that stopped goes on without any generator's state, and on the CPU ends with bitwise the weights of one that did not.
Several ranks draw the same batch, and each takes its slice of it. Dropout alone cannot be so: a network draws masks for the
images that it is given, and each rank has a seed of its own for them.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.data.codec import PIXELS, Codec, dequantised
from ddpm_bench.data.resize import averaged
from ddpm_bench.diffusion.augmentation import BLURRED, SIGMAS, blurred, noised
from ddpm_bench.diffusion.schedule import Schedule
from ddpm_bench.diffusion.times import TimeSampler
from ddpm_bench.errors import UserError
from ddpm_bench.networks.condition import Condition
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.device import float32_as
from ddpm_bench.training.posteriors import Posteriors

ORDER, STEP, DROPOUT = range(3)  # streams


class Labels(NamedTuple):
    """`of` the training images, int64 (N,), and how often a step tells none of them: with the probability `dropout` the label of
    an image is `no_class` instead, each by itself."""

    of: Tensor
    dropout: float = 0.0
    no_class: int | None = None


class Small(NamedTuple):
    """The small images that a super-resolution network learns to enlarge: the batch's own, of `side` pixels, with the noise of
    levels drawn evenly from 0..levels, steps of `schedule`; with `blur` half of them blurred first. See `augmentation.py`."""

    side: int
    levels: int
    schedule: Schedule
    blur: bool = False


class Batch(NamedTuple):
    """x0, eps: (B, C, H, W); t: int64 (B,) in 1..T; weight: of each loss, (B,), or None where all are 1; condition: what the
    network is told beside, or None."""

    x0: Tensor
    t: Tensor
    eps: Tensor
    weight: Tensor | None
    condition: Condition | None = None

    def own(self) -> "Batch":
        """This rank's slice."""
        weight = None if self.weight is None else ranks.slice_of(self.weight)
        condition = None if self.condition is None else self.condition.each(ranks.slice_of)
        return Batch(ranks.slice_of(self.x0), ranks.slice_of(self.t), ranks.slice_of(self.eps), weight, condition)


SHARE = 8
"""A GPU gives the images an eighth of its free memory, at most."""


def placed(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device; where they are, on a GPU that they would take more than SHARE of: then each batch is copied."""
    if device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] // SHARE:
        return images
    return images.to(device)


class Batches:
    """What each training step learns from. `images` uint8 (N, C, H, W) stay uint8, on the device; see `placed` for the exception."""

    def __init__(
        self,
        images: Tensor,
        size: int,
        *,
        flips: bool,
        seed: int,
        times: TimeSampler,
        codec: Codec = PIXELS,
        device: torch.device,
        labels: Labels | None = None,
        small: Small | None = None,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
            raise UserError(
                f"Training images must be uint8 (N, C, H, W) with N > 0, not {images.dtype} {tuple(images.shape)}."
            )
        if seed < 0:
            raise UserError(f"seed = {seed} is negative; use 0 or more.")
        self.images, self.device = placed(images, device), device
        self.labels = labels and labels._replace(of=labels.of.to(self.images.device))
        self.small = small
        self.size, self.flips, self.times, self.codec, self.seed = size, flips, times, codec, seed
        self._posteriors = Posteriors(codec, self.images, flips, device) if codec.random else None
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0, of all ranks; seeds the step's dropout."""
        generator = self._generator(STEP, step)
        indices, flipped, spread = self._indices(step), None, None
        images = self._here(self.images[indices])
        if self.flips:
            flipped = torch.rand((len(images), 1, 1, 1), generator=generator, device=self.device) < 0.5
            images = torch.where(flipped, images.flip(3), images)
        if self._posteriors:
            x0, spread = self._posteriors.of(images, indices, flipped)
        else:
            x0 = self.codec.encode(images)
        if self.codec.dequantised:
            x0 = dequantised(self.codec, images, torch.rand(x0.shape, generator=generator, device=self.device))
        t, weight = self.times.draw(len(x0), generator)
        eps = torch.randn(x0.shape, generator=generator, device=self.device)
        # Drawn last, so that whatever else is drawn depends neither on the codec nor on the condition.
        if spread is not None:
            x0 = x0 + spread * torch.randn(x0.shape, generator=generator, device=self.device)
        condition = self._condition(indices, images, generator)
        rank = (number,) if (number := ranks.rank()) else ()
        torch.manual_seed(self._number(DROPOUT, step, *rank))  # layers draw from the global generator
        return Batch(x0, t, eps, weight, condition)

    def _condition(self, indices: Tensor, images: Tensor, generator: torch.Generator) -> Condition | None:
        if self.labels is None and self.small is None:
            return None
        labels = self.labels and self._labels(self.labels, indices, generator)
        return Condition(labels, *self._small(self.small, images, generator)) if self.small else Condition(labels)

    def _labels(self, labels: Labels, indices: Tensor, generator: torch.Generator) -> Tensor:
        told = self._here(labels.of[indices])
        if labels.no_class is not None and labels.dropout:
            left_out = torch.rand(len(told), generator=generator, device=self.device) < labels.dropout
            told = told.masked_fill(left_out, labels.no_class)
        return told

    def _small(self, small: Small, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The small images, (B, C, h, h) on the scale of x_0, and the levels of their noise, where the network is told levels."""
        z, level = self.codec.encode(averaged(images, small.side)), None
        if small.blur:
            chosen, place = torch.rand((2, len(z)), generator=generator, device=self.device)
            sigma = SIGMAS[0] + (SIGMAS[1] - SIGMAS[0]) * place
            z = torch.where(chosen.reshape(-1, 1, 1, 1) < BLURRED, blurred(z, sigma), z)
        if small.levels:
            level = torch.randint(small.levels + 1, (len(z),), generator=generator, device=self.device)
            eps = torch.randn(z.shape, generator=generator, device=self.device)
            z = noised(small.schedule, z, level, eps)
        return z, level

    def _here(self, chosen: Tensor) -> Tensor:
        """A batch on the device. One that was not there is copied while the device computes: nobody waits."""
        if chosen.device.type == self.device.type:
            return chosen
        return chosen.pin_memory().to(self.device, non_blocking=True)

    def _indices(self, step: int) -> Tensor:
        """(B,) the next of an endless row of permutations of the data set: no image is left out, none comes twice an epoch."""
        first, wanted, parts = step * self.size, self.size, []
        while wanted:
            epoch, offset = divmod(first, len(self.images))
            if epoch != self._epoch:
                order = self._generator(ORDER, epoch)
                self._epoch = epoch
                drawn = torch.randperm(len(self.images), generator=order, device=self.device)
                self._permutation = drawn.to(self.images.device)
            parts.append(self._permutation[offset : offset + wanted])
            first, wanted = first + len(parts[-1]), wanted - len(parts[-1])
        return torch.cat(parts)

    def _number(self, stream: int, *index: int) -> int:
        return int(np.random.SeedSequence((self.seed, stream, *index)).generate_state(1, np.uint64)[0] >> 1)

    def _generator(self, stream: int, index: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self._number(stream, index))


@contextlib.contextmanager
def borrowed_globals(device: torch.device) -> Iterator[None]:
    """Put torch's global generators and float32 precision back as they were.

    Within, on a GPU, float32 means float32 (no TF32): what may be rounded is in bfloat16 already, the rest shall not be.
    """
    with float32_as("ieee"), torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
