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
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.bound import bound_term, prior_bits_per_dim
from ddpm_bench.diffusion.noise import ESTIMATE, PILOT, BlockNoise, block_uniforms
from ddpm_bench.diffusion.reverse import Diffusion, Network, evaluating
from ddpm_bench.errors import UserError
from ddpm_bench.likelihood.bound import Bound, Scored
from ddpm_bench.likelihood.ledger import Ledger
from ddpm_bench.runtime.interrupt import NEVER, Stop
from ddpm_bench.runtime.observer import progress

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
    diffusion: Diffusion,
    network: Network,
    images: Tensor,
    *,
    evals: int,
    seed: int,
    batch: int,
    device: torch.device | str,
    clip_x0: bool = True,
    decoder: str = "exact",
    ledger: Ledger | None = None,
    stop: Stop = NEVER,
    title: str = "bound",
) -> Bound:
    """An unbiased estimate of the bound of `images`, uint8 (N, C, H, W), by `evals` network calls an image.

    Every draw depends on `seed` and the image's index only, not on `batch`. What `ledger` holds is not measured again.
    Raises UserError for images that are not uint8, for none, for too few calls, and for a chain of one step; Interrupted
    when `stop` is set.
    """
    scored, budget = Scored(diffusion, network, images, seed, batch, device, clip_x0, decoder), Budget.of(evals)
    ledger, count, T = ledger or Ledger(), len(images), diffusion.schedule.T
    if T < 2:
        raise UserError("A chain of one step has nothing to estimate; use --exact.")
    with torch.inference_mode(), evaluating(network), progress(title, count * evals, "evaluations") as meter:
        for start, end, held in ledger.pieces("pilot", count, batch):
            if not held:
                ledger.save("pilot", start, end, _first_pass(scored, budget, start, end, stop))
            meter.update(end * (FIRST + budget.pilot))
        pilot = ledger.join("pilot")
        p = proposal(T, pilot["t"], pilot["bits"])
        for start, end, held in ledger.pieces("strata", count, batch):
            if not held:
                ledger.save("strata", start, end, _second_pass(scored, budget, p, start, end, stop))
            meter.update(count * (FIRST + budget.pilot) + end * 2 * budget.strata)
    sums = torch.from_numpy(
        ledger.join("strata")["sums"]
    )  # (N, H, 2): two estimates of the sum over t > 1 for each stratum
    first = torch.from_numpy(pilot["first"])
    spread_of_first = (first[:, 0] - first[:, 1]).square() / 2
    spread_of_strata = (sums[..., 0] - sums[..., 1]).square() / 4
    return Bound(
        prior=torch.from_numpy(pilot["prior"]),
        middle=sums.mean((1, 2)),
        first=first.mean(1),
        variance=spread_of_first / 2 + spread_of_strata.sum(1) / budget.strata**2,
        noise=spread_of_first,
    )


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


def _first_pass(scored: Scored, budget: Budget, start: int, end: int, stop: Stop) -> dict[str, np.ndarray]:
    """prior (B,), first (B, 2), and the pilot's t and bits (B, pilot). Its t is uniform in half of the draws, log-uniform in half."""
    size, T = end - start, scored.diffusion.schedule.T
    u, v = np.moveaxis(block_uniforms(scored.seed, start, size, (budget.pilot, 2), PILOT), -1, 0)
    t = np.where(v < 0.5, 2 + u * (T - 1), 2 * ((T + 1) / 2) ** u).astype(np.int64)
    ones = np.ones((size, FIRST), dtype=np.int64)
    bits, prior = _bits(scored, np.concatenate([ones, t], axis=1), start, PILOT, stop)
    return {"prior": prior, "first": bits[:, :FIRST], "t": t, "bits": bits[:, FIRST:]}


def _second_pass(
    scored: Scored, budget: Budget, p: np.ndarray, start: int, end: int, stop: Stop
) -> dict[str, np.ndarray]:
    """sums (B, H, 2): each an unbiased estimate, from one call, of a stratum's part of the sum over t > 1, times H."""
    size, H = end - start, budget.strata
    u = block_uniforms(scored.seed, start, size, (H, 2), ESTIMATE)
    drawn = np.searchsorted(p.cumsum(), (np.arange(H)[:, None] + u) / H, side="right").clip(max=len(p) - 1)
    bits, _ = _bits(scored, drawn.reshape(size, -1) + 2, start, ESTIMATE, stop)
    return {"sums": bits.reshape(size, H, 2) / p[drawn]}


def _bits(scored: Scored, t: np.ndarray, start: int, stream: int, stop: Stop) -> tuple[np.ndarray, np.ndarray]:
    """L_{t-1} of images start..start+B for every column of t (B, K), and L_T (B,): one network call a column."""
    x0 = to_model(scored.images[start : start + len(t)].to(scored.device))
    noise = BlockNoise(scored.seed, start, len(t), tuple(x0.shape[1:]), scored.device, stream=stream)
    steps = torch.from_numpy(t).to(x0.device)
    columns = []
    for k in range(t.shape[1]):
        stop.check()
        term = bound_term(
            scored.diffusion, scored.network, x0, steps[:, k], noise.draw(), scored.clip_x0, scored.decoder
        )
        columns.append(term.bits)
    prior = prior_bits_per_dim(scored.diffusion.schedule, x0)
    return torch.stack(columns, 1).cpu().double().numpy(), prior.cpu().double().numpy()
