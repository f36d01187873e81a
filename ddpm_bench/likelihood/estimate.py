"""The bound from a few network calls an image: unbiased, stratified over t, with a standard error of its own.

    B_i = L_T + L_0 + sum_{t=2..T} L_{t-1}            of image i, the mean over the noise

A budget of K calls an image is spent in two passes over the images:

    first pass    t = 1 twice, since L_0 is about half of the bound; the rest as a pilot at random t > 1
    between       the pilot's root mean squares, smoothed over log t, become the probabilities p_t of t = 2..T
    second pass   H strata of equal probability, two calls in each: t = F^-1((h + u) / H), F the distribution of p_t

The second pass estimates the sum over t > 1 as the mean of L_{t-1} / p_t. Its draws are independent of the pilot's, which
is not used again, so for any p_t > 0 the estimate is unbiased. The terms of an image are about proportional to p_t, and so
the estimate of each image is nearly right by itself: what makes images differ from each other hardly adds to the error.
The two independent calls of a stratum give its variance without bias.

An exact measurement is not the mean over the noise either: it has one draw at every t, and so the variance

    Var L_0 + sum_{t=2..T} Var L_{t-1}                  of image i, over the noise

of which two fifths may lie at t > 1 (T = 100). The two calls at t = 1 give the first part, strata whose calls meet at one t the
second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.diffusion.noise import ESTIMATE, PILOT, block_uniforms
from ddpm_bench.diffusion.samplers import Chain
from ddpm_bench.errors import UserError
from ddpm_bench.likelihood.bound import Bound, Subject
from ddpm_bench.likelihood.pieces import Pieces, Range
from ddpm_bench.networks.condition import Condition
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import Arrays

FIRST = 2
"""Calls at t = 1."""
FEWEST = FIRST + 1 + 2
"""Calls an image: those at t = 1, one of the pilot, one stratum."""
UNIFORM = 0.05
"""Share of the probabilities that is uniform over t, whatever the pilot found: no term is left out, none weighs too much."""


@dataclass(frozen=True)
class Budget:
    """How the calls of an image are spent."""

    pilot: int
    strata: int

    @classmethod
    def of(cls, evals: int) -> "Budget":
        """UserError for fewer than FEWEST."""
        if evals < FEWEST:
            raise UserError(f"An estimate needs at least {FEWEST} network calls an image, not {evals}; or use --exact.")
        strata = (evals - FIRST - 1) // 2
        return cls(pilot=evals - FIRST - 2 * strata, strata=strata)


def estimate_bits_per_dim(
    chain: Chain,
    images: Tensor,
    *,
    evals: int,
    seed: int,
    decoder: str = "exact",
    runtime: Runtime | None = None,
    pieces: Pieces | None = None,
    condition: Condition | None = None,
) -> Bound:
    """An unbiased estimate of the bound of `images`, uint8 (N, C, H, W), under the chain's denoiser, by `evals` calls an image.

    Every draw depends on `seed` and the image's index only, not on the batch. What `pieces` holds is not measured again.
    condition: what the network is told of the images.
    Raises UserError for images that are not uint8, for none, for a codec that loses some of the image, for too few calls,
    and for a chain of one step; Interrupted when a stop was asked for.
    """
    subject, budget = Subject(chain, images, seed, decoder, runtime or Runtime(), condition), Budget.of(evals)
    pieces, T = pieces or Pieces(), chain.T
    if T < 2:
        raise UserError("A chain of one step has nothing to estimate; use --exact.")
    _pass("pilot", pieces, subject, budget, None)
    pilot = pieces.join("pilot")
    p = proposal(T, pilot["t"], pilot["bits"])
    _pass("strata", pieces, subject, budget, p)
    return _bound(pilot, pieces.join("strata"), p)


def _pass(kind: str, pieces: Pieces, subject: Subject, budget: Budget, p: np.ndarray | None) -> None:
    """One of the two passes over all images: the second where the probabilities p are known."""
    ranges = pieces.ranges(kind, len(subject.images), subject.batch)
    missing = [(start, end) for start, end, held in ranges if not held]
    pieces.measure(kind, missing, _measure_all, kind, subject, budget, p)


def _measure_all(
    pieces: Pieces, missing: Sequence[Range], kind: str, subject: Subject, budget: Budget, p: np.ndarray | None
) -> None:
    """This rank's ranges of a pass."""
    count, denoiser, first = len(subject.images), subject.chain.denoiser, FIRST + budget.pilot
    before, each = (0, first) if p is None else (count * first, 2 * budget.strata)
    total = count * (first + 2 * budget.strata)
    subject.runtime.place_copy(denoiser.network)
    with torch.inference_mode(), denoiser.evaluating(), progress("bound", total, "evaluations", before) as meter:
        for start, end in ranks.mine(missing):
            made = (
                _first_pass(subject, budget, start, end) if p is None else _second_pass(subject, budget, p, start, end)
            )
            pieces.save(kind, start, end, made)
            meter.update(before + end * each)


def _bound(pilot: Arrays, strata: Arrays, p: np.ndarray) -> Bound:
    """From what the two passes found, and the probabilities between them."""
    prior, first, t, bits = map(torch.from_numpy, (pilot["prior"], pilot["first"], strata["t"], strata["bits"]))
    H = t.shape[1]
    sums = bits / torch.from_numpy(p)[t - 2]  # (N, H, 2): two estimates of the sum over t > 1 for each stratum
    of_first, of_strata = (first[:, 0] - first[:, 1]).square() / 2, (sums[..., 0] - sums[..., 1]).square() / 4
    return Bound(
        prior=prior,
        middle=sums.mean((1, 2)),
        first=first.mean(1),
        variance=of_first / 2 + of_strata.sum(1) / H**2,
        noise=of_first + _noise_after_first(t, bits, p),
    )


def _noise_after_first(t: Tensor, bits: Tensor, p: np.ndarray) -> Tensor:
    """The variance of L_1 + ... + L_{T-1} by one draw of noise at every t: (N,), without bias, and 0 for most images.

    t, bits: (N, H, 2), the draws of the second pass. Both calls of a stratum may fall on the same t. They differ by the
    noise alone then, and half of their squared difference is the variance of L_{t-1}. Divided by the probability pi_t
    that this happens at that t, it counts for the times that it does not, and the sum is right in the mean.
    """
    H, reached = t.shape[1], p.cumsum()
    borders = np.arange(H + 1)[:, None] / H
    shared = np.minimum(reached, borders[1:]) - np.maximum(reached - p, borders[:-1])  # (H, T - 1)
    pi = torch.from_numpy(np.square(H * shared.clip(min=0)).sum(0))
    met = t[..., 0] == t[..., 1]
    found = (bits[..., 0] - bits[..., 1]).square() / 2 / pi[t[..., 0] - 2]
    return torch.where(met, found, 0.0).sum(1)


def proposal(T: int, t: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """p_2..p_T, (T - 1,), summing to 1: about proportional to the root mean square of L_{t-1}, learned from terms `bits` at `t`.

    t, bits: of one shape. Terms that are not finite teach nothing.
    """
    steps = np.arange(2, T + 1)
    uniform = np.full(T - 1, 1 / (T - 1))
    known = np.isfinite(bits) & (bits > 0)
    if not known.any():
        return uniform
    # Bins of equal width in log t: the terms fall steeply with t, and about as a power of it.
    edges = np.geomspace(2, T + 1, min(24, T) + 1)
    bin_of = np.digitize(t[known], edges[1:-1])
    n = np.bincount(bin_of, minlength=len(edges) - 1)
    squares, logs = (np.bincount(bin_of, weights=w, minlength=len(n)) for w in (bits[known] ** 2, np.log(t[known])))
    filled = n > 0
    size = np.exp(np.interp(np.log(steps), logs[filled] / n[filled], 0.5 * np.log(squares[filled] / n[filled])))
    return (1 - UNIFORM) * size / size.sum() + UNIFORM * uniform


def _first_pass(subject: Subject, budget: Budget, start: int, end: int) -> Arrays:
    """prior (B,), first (B, 2), and the pilot's t and bits (B, pilot). Its t is uniform in half of the draws, log-uniform in half."""
    size, T = end - start, subject.chain.T
    u, v = np.moveaxis(block_uniforms(subject.seed, start, size, (budget.pilot, 2), PILOT), -1, 0)
    t = np.where(v < 0.5, 2 + u * (T - 1), 2 * ((T + 1) / 2) ** u).astype(np.int64)
    ones = np.ones((size, FIRST), dtype=np.int64)
    bits, prior = _bits(subject, np.concatenate([ones, t], axis=1), start, PILOT)
    return {"prior": prior, "first": bits[:, :FIRST], "t": t, "bits": bits[:, FIRST:]}


def _second_pass(subject: Subject, budget: Budget, p: np.ndarray, start: int, end: int) -> Arrays:
    """t and bits (B, H, 2): two draws of each stratum."""
    size, H = end - start, budget.strata
    u = block_uniforms(subject.seed, start, size, (H, 2), ESTIMATE)
    t = 2 + np.searchsorted(p.cumsum(), (np.arange(H)[:, None] + u) / H, side="right").clip(max=len(p) - 1)
    bits, _ = _bits(subject, t.reshape(size, -1), start, ESTIMATE)
    return {"t": t, "bits": bits.reshape(size, H, 2)}


def _bits(subject: Subject, t: np.ndarray, start: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
    """L_{t-1} of images start..start+B for every column of t (B, K), and L_T (B,): one network call a column."""
    x0, denoiser = subject.x0(start, start + len(t)), subject.denoiser(start, start + len(t))
    noise, steps, columns = subject.noise(x0, start, stream), torch.from_numpy(t).to(x0.device), []
    for k in range(t.shape[1]):
        check_stop()
        columns.append(subject.term(denoiser, x0, steps[:, k], noise.draw()).bits)
    return torch.stack(columns, 1).cpu().double().numpy(), subject.prior(x0).cpu().double().numpy()
