"""How far two groups of training runs lie apart in a metric: an estimate, its interval and p, over their seeds.

Runs of one seed begin with the same weights and see the same images and noise in the same order, whatever the cell. So the
difference is taken seed by seed, and what a seed does to both cells drops out of it:

    d_i = y_a,i - y_b,i,     mean(d) +- t s_d / sqrt(n),     n - 1 degrees of freedom.

Where fewer than two seeds are in both groups it is Welch's, with the degrees of freedom of Welch and Satterthwaite:

    mean(y_a) - mean(y_b) +- t sqrt(u + v),     u = s_a^2 / n, v = s_b^2 / m,     (u + v)^2 / (u^2 / (n - 1) + v^2 / (m - 1)).

Scores and distances scatter in proportion to their size, so that y is their logarithm and the difference a share of the
second group's value; y is the number itself for bits/dim and all else. Errors within one run do not enter.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ddpm_bench.config.metrics import METRICS, Metric
from ddpm_bench.records.student import t_limit, t_tail

ALPHA = 0.05


@dataclass(frozen=True)
class Effect:
    """First - second on the metric's scale: `mean`, its standard `error`, and the degrees of `freedom` of that.

    relative: the scale is the logarithm. pairs: seeds that both have; 0 where it is Welch's. runs: of each group.
    """

    relative: bool
    mean: float
    error: float
    freedom: float
    pairs: int
    runs: tuple[int, int]

    @property
    def estimate(self) -> float:
        """In the metric's unit, or as a share of the second group's value."""
        return self._shown(self.mean)

    @property
    def p(self) -> float:
        """Of the hypothesis that there is no difference, two-sided."""
        return min(self.p_beyond(0.0, True), self.p_beyond(0.0, False))

    @property
    def smallest(self) -> float:
        """The smallest difference, as `estimate` is, that would have had p = 5% with this scatter."""
        return self._shown(self._half(ALPHA))

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Of the estimate, with confidence 1 - alpha."""
        half = self._half(alpha)
        return self._shown(self.mean - half), self._shown(self.mean + half)

    def p_beyond(self, limit: float, above: bool) -> float:
        """Against a true difference that is not above (below) `limit`, which is on the scale: twice one tail, at most 1.

        Twice, so that p of both directions together are wrong as often as they say.
        """
        beyond = self.mean - limit if above else limit - self.mean
        if not self.error:  # every seed has the same difference
            return 0.0 if beyond > 0 else 1.0
        return min(1.0, 2 * t_tail(beyond / self.error, self.freedom))

    def as_json(self) -> dict[str, Any]:
        """`estimate`, `interval` and `smallest` are shares where `relative`."""
        return asdict(self) | {
            "estimate": self.estimate, "interval": self.interval(), "p": self.p, "smallest": self.smallest,
        }  # fmt: skip

    def text(self, metric: Metric, value: float) -> str:
        """An estimate or an end of its interval in words: +0.12, or as a share: +12.3%."""
        return f"{value:+.1%}" if self.relative else metric.text(value, sign=True)

    def interval_text(self, metric: Metric) -> str:
        """The 95% interval: +3.1% to +9.8%."""
        return " to ".join(self.text(metric, end) for end in self.interval())

    def _half(self, alpha: float) -> float:
        return t_limit(alpha / 2, self.freedom) * self.error

    def _shown(self, value: float) -> float:
        return math.expm1(value) if self.relative else value


def is_relative(metric: Metric) -> bool:
    """Are its differences shares?"""
    return metric.scale == "log" and not metric.is_bound


def effect(key: str, first: Mapping[int, float], second: Mapping[int, float]) -> Effect | None:
    """The difference first - second of the metric `key`; both hold a value a seed, two or more.

    None for values that have no logarithm where one is taken.
    """
    scaled = _scaled(key, first, second)
    if scaled is None:
        return None
    y_a, y_b = scaled
    relative, runs, shared = is_relative(METRICS[key]), (len(y_a), len(y_b)), sorted(y_a.keys() & y_b.keys())
    if len(shared) > 1:
        d = np.array([y_a[seed] - y_b[seed] for seed in shared])
        return Effect(relative, float(d.mean()), _error(d), len(d) - 1, len(d), runs)
    a, b = np.array([*y_a.values()]), np.array([*y_b.values()])
    u, v = _error(a) ** 2, _error(b) ** 2
    freedom = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1)) if u + v else 1.0
    return Effect(relative, float(a.mean() - b.mean()), math.sqrt(u + v), freedom, 0, runs)


def against_one(key: str, first: Mapping[int, float], second: Mapping[int, float]) -> Effect | None:
    """`effect` where one of the two has a single run, which is taken to scatter as the others do."""
    scaled = _scaled(key, first, second)
    if scaled is None:
        return None
    a, b = (np.array([*side.values()]) for side in scaled)
    several = a if len(a) > 1 else b
    error = float(several.std(ddof=1)) * math.sqrt(1 + 1 / len(several))
    return Effect(
        is_relative(METRICS[key]), float(a.mean() - b.mean()), error, len(several) - 1, 0, (len(a), len(b))
    )  # fmt: skip


def _scaled(key: str, *sides: Mapping[int, float]) -> list[dict[int, float]] | None:
    """The values on the metric's scale; None where they are not positive and should be."""
    if not is_relative(METRICS[key]):
        return [dict(side) for side in sides]
    if any(value <= 0 for side in sides for value in side.values()):
        return None
    return [{seed: math.log(value) for seed, value in side.items()} for side in sides]


def _error(values: np.ndarray) -> float:
    """Of the mean."""
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def holm(p: list[float]) -> list[float]:
    """Each p adjusted so that, of all of them, any is wrongly below a level at most that often (Holm 1979)."""
    adjusted, highest = list(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted
