"""Bits per dimension of a data set under a model: the variational bound, term by term or by an unbiased estimate."""

from ddpm_bench.likelihood.bound import Bound
from ddpm_bench.likelihood.estimate import estimate_bits_per_dim
from ddpm_bench.likelihood.exact import bits_per_dim

__all__ = ["Bound", "bits_per_dim", "estimate_bits_per_dim"]
