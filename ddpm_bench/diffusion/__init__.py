"""The mathematics of "Denoising Diffusion Probabilistic Models" (Ho, Jain, Abbeel 2020).

Schedules, the reverse process, its bound, its objectives and sampling. Everything works with any callable
`network(x_t, step)`; see `reverse.Network`.
"""

from ddpm_bench.diffusion.bound import bound_term
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import L, LSimple
from ddpm_bench.diffusion.parameterization import X0, Eps, Mu
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import Ancestral, Chain, sample
from ddpm_bench.diffusion.schedule import Schedule, constant, cosine, linear, quadratic
from ddpm_bench.diffusion.variance import FixedBeta, FixedBetaTilde, LearnedDiagonal, LearnedRange

__all__ = [
    "X0",
    "Ancestral",
    "Chain",
    "Denoiser",
    "Diffusion",
    "Eps",
    "FixedBeta",
    "FixedBetaTilde",
    "L",
    "LSimple",
    "LearnedDiagonal",
    "LearnedRange",
    "Mu",
    "Schedule",
    "bound_term",
    "constant",
    "cosine",
    "linear",
    "quadratic",
    "sample",
]
