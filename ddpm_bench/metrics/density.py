"""Density and coverage (Naeem, Oh, Uh, Choi, Yoo 2020, eq. 3 and 4), as their package `prdc` computes them.

    density     1 / (k M) sum_j #{i : |y_j - x_i| < r_k(x_i)}       samples in balls of real images, counted with multiplicity
    coverage    share of the real x_i with a sample y_j such that |y_j - x_i| < r_k(x_i)

r_k(x_i) is the distance from x_i to the k-th nearest other real image, as for precision and recall; there a point on the
sphere is inside, here it is not. A real image far from all others has a large ball, which makes precision high; density
counts in how many balls a sample lies, and may exceed 1. For identical sets without ties both are 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.metrics.products import blocks, squared_distances


@dataclass(frozen=True)
class Local:
    """Of each sample (M,): in how many balls of real images it lies, over k. Of each real image (N,): is a sample in its ball?"""

    densities: Tensor
    covered: Tensor

    @property
    def density(self) -> float:
        return float(self.densities.mean())

    @property
    def coverage(self) -> float:
        return float(self.covered.double().mean())


def density_and_coverage(samples: Tensor, real: Tensor, k: int) -> Local:
    """Of features in float64, (M, d) and (N, d) with N > k; computed where they are. Raises Interrupted between blocks."""
    inside, covered = samples.new_zeros(len(samples)), []
    for centres in blocks(real, max(len(samples), len(real))):
        # The nearest one is the image itself.
        squared_radii = squared_distances(centres, real).kthvalue(k + 1, dim=1, keepdim=True).values
        within = squared_distances(centres, samples) < squared_radii
        inside += within.sum(0)
        covered.append(within.any(1))
    return Local(inside / k, torch.cat(covered))
