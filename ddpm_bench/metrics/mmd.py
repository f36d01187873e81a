"""CMMD's distance (Jayasumana, Ramalingam, Veit, Glasner, Chakrabarti, Kumar 2024): no Gaussian is assumed of the features.

    1000 MMD^2 = 1000 ( mean k(x, x') + mean k(y, y') - 2 mean k(x, y) ),    k(x, y) = exp( -|x - y|^2 / (2 * 10^2) )

over all pairs, those of an image with itself among them (the biased estimator, Gretton et al. 2012, eq. 5), of features
divided by their norm. The kernel is so wide that 10 |mean x - mean y|^2 comes out, to within 2%.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ddpm_bench.metrics.products import blocks, squared_distances

BANDWIDTH, SCALE = 10.0, 1000.0


def scaled_mmd(x: Tensor, y: Tensor) -> float:
    """1000 MMD^2 of features in float64, (M, d) and (N, d), of any norm. Raises Interrupted between blocks."""
    x, y = normalize(x), normalize(y)
    return SCALE * float(_mean_kernel(x, x) + _mean_kernel(y, y) - 2 * _mean_kernel(x, y))


def _mean_kernel(x: Tensor, y: Tensor) -> Tensor:
    sums = [squared_distances(block, y).mul_(-0.5 / BANDWIDTH**2).expm1_().sum() for block in blocks(x, len(y))]
    return torch.stack(sums).sum() / (len(x) * len(y))  # without the 1 of every pair, which cancels
