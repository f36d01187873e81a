"""How sure a number is: bootstrap intervals, and the Frechet distance extrapolated to infinitely many samples.

A replicate (Efron 1979) draws N of the N samples with replacement and scores them; the reference is fixed. Resampled
scores are biased: N draws hold fewer different samples, so that distances come out too high by about as much as that of
N samples lies above that of infinitely many. So an interval here is the replicates' deviations from their own mean, put
around the measured number. It is for what N samples of the same model score on average. The bias of N stays in it, as
it does in published scores; what varies between training runs is not in it.

    FD at N     FD of all samples
    FD at inf   intercept of a straight line in 1/n through the mean FD of subsets of n = N, 2N/3 and N/2 samples
                (Chong and Forsyth 2020, section 3: FD_n is close to FD_inf + c / n)

The subsets are all samples, all but one third and all but one half, each part left out in turn. So every sample counts
alike at each n, and the choice of subsets adds no noise of first order to the intercept. The line holds while the
smallest subset determines a covariance: FD at inf is given for SAMPLES_A_FEATURE samples a feature or more.

Measured coverage of the 95% intervals in simulations (`tests/test_uncertainty.py` repeats some), of the mean FD_N, the
true FD and the mean score; 100 or 200 replicates, 150 to 400 repetitions, so that 95% is measured to about 2%:

    samples                                                        FD_N   FD at inf   score
    256 of a Gaussian of 16 features, far from the reference        95%         94%
    256 of a Gaussian of 16 features, close to it                   99%         99%
    512 of a Gaussian of 64 features, far                           98%         99%
    512 blurred images, 64 features of the embedded extractor       97%         98%     94%
    512 held-out real images, the same features                    100%         98%     98%

So intervals are too wide rather than too narrow where the samples are as good as real ones.

The line of the extrapolation is not quite straight, and FD at inf comes out too low. Measured on Gaussians of 16 to 64
features, as good as the reference or far from it, by this share of the bias of FD_N: 8 to 10% with 4 samples a feature,
3 to 5% with 8, about 2% with 16. So for a perfect model, whose distance is 0, it is more often below zero than not: in
8 of 10 repetitions with 4 samples for each of 32 features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.records.fields import QUANTILES
from ddpm_bench.records.protocol import SAMPLES_A_FEATURE
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress

FEWEST = 40
"""Replicates below which there is no quantile at 2.5%."""
WORK = 100_000
"""Replicates times features, at most, for distances: 50 replicates of Inception's 2048, each a minute on a CPU core."""

SUBSETS = ((), (0, 1, 2), (3, 4, 5), (0, 1), (2, 3), (4, 5))
"""The sixths of the samples that each subset leaves out: none, halves, thirds."""

Quantiles = tuple[float, ...]


def quantiles(value: float, replicates: np.ndarray) -> Quantiles:
    """The interval of `value` at QUANTILES: the deviations of `replicates` (R,) from their mean, around it."""
    at = np.quantile(replicates - replicates.mean(), QUANTILES, method="weibull")
    return tuple((value + at).tolist())


def mean_quantiles(values: Tensor, replicates: int, seed: int) -> Quantiles:
    """The interval of the mean of `values` (N,), one for each of N independent images."""
    held, rng = values.double().cpu().numpy(), np.random.default_rng(seed)
    means = np.array([held[rng.integers(len(held), size=len(held))].mean() for _ in range(replicates)])
    return quantiles(float(held.mean()), means)


@dataclass(frozen=True, eq=False)
class ScorePart:
    """Samples of one part of the Inception Score: p(y|x), (n, classes), and the sum over y of p log p, (n,)."""

    p: Tensor
    p_log_p: Tensor

    def scores(self, counts: Tensor) -> Tensor:
        """exp E_x KL(p(y|x) || p(y)), (R,), where sample i counts `counts[:, i]` times: float64 (R, n)."""
        n = counts.sum(1)
        marginal = counts @ self.p / n[:, None]
        return (counts @ self.p_log_p / n + torch.special.entr(marginal).sum(1)).exp()


def score_quantiles(logits: Tensor, parts: int, replicates: int, seed: int) -> tuple[float, Quantiles]:
    """The Inception Score of `logits` (N, classes), the mean over `parts` in order, and its interval.

    Each part is resampled from its own samples.
    """
    log_p, rng = logits.double().log_softmax(1), np.random.default_rng(seed)
    p = log_p.exp()
    p_log_p, found = (p * log_p).sum(1), np.zeros(1 + replicates)
    for i in range(parts):
        rows = slice(i * len(p) // parts, (i + 1) * len(p) // parts)  # as torch-fidelity divides them
        part, n = ScorePart(p[rows], p_log_p[rows]), len(p[rows])
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=replicates)
        counts = torch.from_numpy(np.concatenate([np.ones((1, n)), drawn])).to(p)
        found = found + part.scores(counts).cpu().numpy() / parts
    return float(found[0]), quantiles(float(found[0]), found[1:])


class Frechet:
    """|m - m_2|^2 + tr(S + S_2 - 2 (S S_2)^(1/2)) of many subsets of `features` (N, d); m_2 and S_2 are a reference's.

    mean (d,) and covariance (d, d): of the reference. S has the divisor n - 1. All in float64, where the features are.
    """

    def __init__(self, features: Tensor, mean: np.ndarray, covariance: np.ndarray) -> None:
        features = features.double()
        of_reference = torch.from_numpy(covariance).to(features)
        values, vectors = torch.linalg.eigh(of_reference)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        self.trace = of_reference.trace()
        self.x = features - torch.from_numpy(mean).to(features)
        self.y = self.x @ root  # the eigenvalues of its covariance are those of S S_2
        self.squares = self.x.square().sum(1)
        kept = [[sixth not in left_out for sixth in range(6)] for left_out in SUBSETS]
        self.kept = torch.tensor(kept).to(features)  # (subsets, 6)

    def __len__(self) -> int:
        return len(self.x)

    def distance(self, rows: Tensor) -> float:
        """FD of the samples `rows`, int64 (n,)."""
        return float(self._distances(self.kept[:1], rows)[0])

    def distances(self, rows: Tensor) -> np.ndarray:
        """FD of each of SUBSETS of the samples `rows`, int64 (n,), which are taken to be in random order."""
        return self._distances(self.kept, rows).cpu().numpy()

    def _distances(self, kept: Tensor, rows: Tensor) -> Tensor:
        sixths = rows.to(self.x.device).tensor_split(6)
        n = kept @ torch.tensor([len(sixth) for sixth in sixths]).to(kept)
        mean = kept @ torch.stack([self.x[sixth].sum(0) for sixth in sixths]) / n[:, None]
        y_mean = kept @ torch.stack([self.y[sixth].sum(0) for sixth in sixths]) / n[:, None]
        squares = kept @ torch.stack([self.squares[sixth].sum() for sixth in sixths])
        products = torch.stack([self.y[sixth].T @ self.y[sixth] for sixth in sixths]).flatten(1)
        d = self.y.shape[1]
        products = (kept @ products).reshape(-1, d, d) - n[:, None, None] * y_mean[:, :, None] * y_mean[:, None, :]
        roots = torch.linalg.eigvalsh(products / (n - 1)[:, None, None]).clamp(min=0).sqrt().sum(1)
        trace = (squares - n * mean.square().sum(1)) / (n - 1)
        return mean.square().sum(1) + trace + self.trace - 2 * roots

    @cached_property
    def _intercept(self) -> np.ndarray:
        """(subsets,): what `distances` are weighted with to give the intercept of the fitted line."""
        share = self.kept.mean(1).cpu().numpy()
        shares, at = np.unique(share, return_inverse=True)
        rows = np.linalg.pinv(np.stack([np.ones_like(shares), 1 / shares], 1))[0]
        return rows[at] / np.bincount(at)[at]

    def extrapolated(self, distances: np.ndarray) -> np.ndarray:
        """FD for infinitely many samples, (...,), from what `distances` gave, (..., subsets)."""
        return distances @ self._intercept


@dataclass(frozen=True)
class Distance:
    """A Frechet distance and the one extrapolated to infinitely many samples, which few samples do not have."""

    value: float
    infinity: float | None
    quantiles: Quantiles = ()
    infinity_quantiles: Quantiles = ()


def frechet(features: Tensor, mean: np.ndarray, covariance: np.ndarray, *, replicates: int, seed: int) -> Distance:
    """The distance of `features` (N, d) to a reference, both extrapolated and not, with intervals if `replicates`.

    Computed where the features are. `seed` is for the intervals alone. A replicate costs N d^2 multiplications and the
    eigenvalues of six d x d matrices. Raises Interrupted between replicates.
    """
    of = Frechet(features, mean, covariance)
    count, enough = len(of), len(of) >= SAMPLES_A_FEATURE * features.shape[1]
    measured = of.distances if enough else lambda rows: np.array([of.distance(rows)])
    order = np.random.default_rng(0).permutation(count)  # always the same: samples of a folder may be sorted by class
    point = measured(torch.from_numpy(order))
    value, infinity = float(point[0]), float(of.extrapolated(point)) if enough else None
    if not replicates:
        return Distance(value, infinity)
    drawn = _resampled(measured, count, replicates, seed)
    around_infinity = () if infinity is None else quantiles(infinity, of.extrapolated(drawn))
    return Distance(value, infinity, quantiles(value, drawn[:, 0]), around_infinity)


def _resampled(measured: Callable[[Tensor], np.ndarray], count: int, replicates: int, seed: int) -> np.ndarray:
    """What `measured` makes of `count` rows drawn of as many with replacement, so many times: (replicates, ...)."""
    rng, drawn = np.random.default_rng(seed), []
    with progress("interval of the distance", replicates, "replicates") as meter:
        for done in range(replicates):
            check_stop()
            drawn.append(measured(torch.from_numpy(rng.integers(count, size=count))))
            meter.update(done + 1)
    return np.stack(drawn)


def replicates_for(bootstrap: int, features: int) -> int:
    """How many of `bootstrap` replicates a distance of so many features gets: fewer where each costs much."""
    return min(bootstrap, max(FEWEST, WORK // features))
