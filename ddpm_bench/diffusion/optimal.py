"""Networks that are right: E[eps | x_t] for data whose distribution is known. They have known bounds and samples."""

import torch
from torch import Tensor

from ddpm_bench.diffusion.reverse import Network
from ddpm_bench.diffusion.schedule import Schedule


def gaussian_eps(schedule: Schedule, mean: float, variance: float) -> Network:
    """For x_0 ~ N(mean, variance), every dimension independent: it minimises every term of the bound."""

    def network(x_t: Tensor, step: Tensor) -> Tensor:
        a = schedule.at("alpha_bar", step + 1, x_t)
        return (1 - a).sqrt() * (x_t - a.sqrt() * mean) / (a * variance + 1 - a)

    return network


def finite_eps(schedule: Schedule, points: Tensor) -> Network:
    """For x_0 one of `points` (K, C, H, W), equally likely."""

    def network(x_t: Tensor, step: Tensor) -> Tensor:
        a, known = schedule.at("alpha_bar", step + 1, x_t), points.to(x_t)
        distances = (x_t[:, None] - a.sqrt()[:, None] * known).square().flatten(2).sum(2)  # (B, K)
        weights = torch.softmax(-distances / (2 * (1 - a.flatten(1))), dim=1)
        expected_x0 = torch.einsum("bk,kchw->bchw", weights, known)
        return (x_t - a.sqrt() * expected_x0) / (1 - a).sqrt()

    return network
