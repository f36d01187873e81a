"""The bound with every t of every image, one draw of noise each: the paper's own measurement (section 3.3, 4.1)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.diffusion.noise import BOUND
from ddpm_bench.diffusion.process import precise
from ddpm_bench.diffusion.reverse import all_at
from ddpm_bench.diffusion.samplers import Chain
from ddpm_bench.likelihood.bound import Bound, Subject
from ddpm_bench.likelihood.pieces import Pieces, Range
from ddpm_bench.networks.condition import Condition
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.interrupt import check_stop, stop_requested
from ddpm_bench.runtime.observer import Meter, progress
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import Arrays

SAVE_EVERY_S = 60


def bits_per_dim(
    chain: Chain,
    images: Tensor,
    *,
    seed: int,
    decoder: str = "exact",
    runtime: Runtime | None = None,
    pieces: Pieces | None = None,
    condition: Condition | None = None,
) -> Bound:
    """The whole bound of `images`, uint8 (N, C, H, W), under the chain's denoiser, by N * T network calls.

    The noise depends on `seed` and the image's index only, not on the batch. Modules are scored in evaluation mode and
    put back as they were. What `pieces` holds is not measured again.
    condition: what the network is told of the images. Raises UserError for images that are not uint8, or none, and for a
    codec that loses some of the image; Interrupted, after saving, when a stop was asked for.
    """
    subject = Subject(chain, images, seed, decoder, runtime or Runtime(), condition)
    pieces, count = pieces or Pieces(), len(images)
    known = pieces.ranges("exact", count, subject.batch)
    missing = [(start, end) for start, end, state in known if not state or state["left"] > 0]
    pieces.measure("exact", missing, _measure_all, subject)
    parts = [arrays for _, _, arrays in pieces.read("exact")]
    prior, middle, first = (
        torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in ("prior", "middle", "first")
    )
    terms, mse = (torch.from_numpy(sum(part[name] for part in parts)) / count for name in ("terms", "squared_error"))
    nothing = torch.zeros_like(prior)
    return Bound(prior, middle, first, nothing, nothing, terms, mse)


@dataclass
class _Sums:
    """Over the steps T..left+1 of one range of images.

    middle: (B,), over t > 1. first: (B,), L_0. terms, squared_error: (T,), over the images.
    """

    left: int
    middle: Tensor
    first: Tensor
    terms: Tensor
    squared_error: Tensor

    @classmethod
    def of(cls, state: Arrays, size: int, T: int, device: torch.device) -> "_Sums":
        """As they were saved, or empty where nothing was."""
        lengths = {"middle": size, "first": size, "terms": T, "squared_error": T}
        arrays = {name: torch.as_tensor(state.get(name, np.zeros(n))) for name, n in lengths.items()}
        like = precise(torch.zeros(0, device=device))
        return cls(int(state.get("left", T)), **{name: array.to(like, copy=True) for name, array in arrays.items()})

    def add(self, t: int, bits: Tensor, squared_error: Tensor) -> None:
        """Step t: L_{t-1} and the squared error of x_0, (B,) each."""
        self.terms[t - 1] = bits.sum()
        self.squared_error[t - 1] = squared_error.sum()
        if t > 1:
            self.middle += bits
        else:
            self.first = bits
        self.left = t - 1

    def arrays(self) -> Arrays:
        names = ("middle", "first", "terms", "squared_error")
        return {name: getattr(self, name).cpu().double().numpy() for name in names} | {"left": np.array(self.left)}


def _measure_all(pieces: Pieces, missing: Sequence[Range], subject: Subject) -> None:
    """This rank's ranges."""
    total, denoiser = len(subject.images) * subject.chain.T, subject.chain.denoiser
    subject.runtime.place_copy(denoiser.network)
    with torch.inference_mode(), denoiser.evaluating(), progress("bound", total, "evaluations") as meter:
        for start, end in ranks.mine(missing):
            _measure(subject, start, end, pieces.held("exact", start, end), pieces, meter)


def _measure(subject: Subject, start: int, end: int, state: Arrays, pieces: Pieces, meter: Meter) -> None:
    """Images start..end, from where `state` stopped down to t = 1, saving from time to time."""
    T, size, x0, denoiser = subject.chain.T, end - start, subject.x0(start, end), subject.denoiser(start, end)
    noise, sums = subject.noise(x0, start, BOUND), _Sums.of(state, size, T, x0.device)
    for _ in range(T - sums.left):
        noise.draw()  # draws that the saved part has used

    def save() -> None:
        pieces.save("exact", start, end, sums.arrays() | {"prior": subject.prior(x0).cpu().double().numpy()})

    saved = time.monotonic()
    for t in range(sums.left, 0, -1):
        if stop_requested() or time.monotonic() - saved > SAVE_EVERY_S:
            save()
            saved = time.monotonic()
            check_stop()
        term = subject.term(denoiser, x0, all_at(t, size, x0.device), noise.draw())
        sums.add(t, term.bits, (x0 - term.x0).square().flatten(1).mean(1))
        meter.update(start * T + size * (T + 1 - t))
    save()
