"""Progressive coding: what a receiver knows after r reverse steps (Ho, Jain, Abbeel 2020, section 4.3, Table 4).

After r network evaluations the receiver has x_t, t = T - r + 1, and predicts x_0 from it:

    rate(r) = L_T + sum_{s=t+1..T} L_{s-1}   bits/dim,      RMSE(r) = 127.5 sqrt(mse(t))   of pixels 0..255.

At r = T the rate is all of the bound but L_0, which is the distortion in bits/dim. From records alone, without torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np

from ddpm_bench.config.published import Coding, CodingPoint
from ddpm_bench.records.likelihoods import BoundTerms

HALF_RANGE = 127.5
"""Grey levels that one unit of [-1, 1] stands for."""
LINES = 10
"""Lines of the table, evenly spaced over the reverse steps."""
MEASURED_HEADS = ("reverse steps", "rate, bits/dim", "RMSE, 0..255")
PUBLISHED_HEADS = tuple(f"published {head}" for head in MEASURED_HEADS)


class Point(NamedTuple):
    """After `steps` reverse steps: `rate` in bits/dim, `rmse` of pixels 0..255."""

    steps: int
    rate: float
    rmse: float


@dataclass(frozen=True)
class Coded:
    """A progressive code that was measured; one point a reverse step, r = 1..T. `label` is a grid's label.

    rate, distortion: of the whole code, in bits/dim; they add up to the bound.
    """

    label: str
    points: tuple[Point, ...]
    rate: float
    distortion: float

    @property
    def T(self) -> int:
        return len(self.points)


def has_progressive(bound: BoundTerms) -> bool:
    """Does the record hold what the code needs? An estimate does not, nor do records of early versions."""
    return bool(bound.terms) and len(bound.terms) == len(bound.mse)


def coded(label: str, bounds: Sequence[BoundTerms]) -> Coded:
    """The code of a model: the mean over the bounds, one a seed, all with equally many steps. ValueError without single
    terms and errors (see `has_progressive`)."""
    if not all(map(has_progressive, bounds)):
        raise ValueError("a progressive code needs the terms and errors of every t")
    runs = [_run(bound) for bound in bounds]
    rates, errors = np.mean(runs, axis=0).tolist()
    return Coded(
        label=label,
        points=tuple(Point(r, rate, rmse) for r, (rate, rmse) in enumerate(zip(rates, errors, strict=True), 1)),
        rate=fmean(bound.prior + bound.middle for bound in bounds),
        distortion=fmean(bound.first for bound in bounds),
    )


def _run(bound: BoundTerms) -> tuple[np.ndarray, np.ndarray]:
    """Rate and RMSE after r = 1..T reverse steps: t = T..1, and the rate holds L_T and the terms of all s > t."""
    terms, mse = np.array(bound.terms[::-1]), np.array(bound.mse[::-1])
    return np.cumsum([bound.prior, *terms[:-1]]), HALF_RANGE * np.sqrt(mse)


def lines(code: Coded, published: Coding | None = None) -> list[list[str]]:
    """The table's entries from the last step down; published ones stand at the same share of all steps."""
    T = code.T
    steps = sorted({max(1, round(T * part / LINES)) for part in range(1, LINES + 1)}, reverse=True)
    measured = [_entries(code.points[r - 1]) for r in steps]
    if published is None:
        return measured
    return [line + _published_at(r, T, published) for line, r in zip(measured, steps, strict=True)]


def _entries(point: Point | CodingPoint) -> list[str]:
    return [f"{point.steps:,}", f"{point.rate:.5f}", f"{point.rmse:.5f}"]


def _published_at(r: int, T: int, published: Coding) -> list[str]:
    def apart(point: CodingPoint) -> int:
        return abs(point.steps * T - r * published.T)

    nearest = min(published.points, key=apart)
    if 2 * apart(nearest) > published.T:  # more than half a step of the measured chain
        return [""] * len(PUBLISHED_HEADS)
    return _entries(nearest)


def split_in_words(code: Coded, published: Coding | None = None) -> str:
    """Rate and distortion of the whole code, beside the published ones."""
    said = f"Rate {code.rate:.2f} bits/dim (all terms but L_0), distortion {code.distortion:.2f} bits/dim (L_0)"
    theirs = f"; published: rate {published.rate:.2f}, distortion {published.distortion:.2f}" if published else ""
    return f"{said}{theirs}."
