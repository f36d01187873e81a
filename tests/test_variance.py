"""Variances: the two fixed ones in closed form, and the learned one as it comes."""

import pytest
import torch
from diffusion_cases import SHORT, all_steps, normals

from ddpm_bench.diffusion.variance import VARIANCES, LearnedDiagonal, LearnedRange

T_ALL = all_steps(SHORT)
LIKE = torch.zeros(SHORT.T, 1, 2, 2, dtype=torch.float64)


def test_fixed_variances_are_beta_and_beta_tilde_after_the_first_step() -> None:
    large = VARIANCES["fixed-beta"].log_variance(SHORT, None, T_ALL, LIKE).exp().flatten()
    small = VARIANCES["fixed-beta-tilde"].log_variance(SHORT, None, T_ALL, LIKE).exp().flatten()
    torch.testing.assert_close(large[1:], SHORT.betas[1:], rtol=1e-12, atol=0)
    ratio = (1 - SHORT.alpha_bar[:-1]) / (1 - SHORT.alpha_bar[1:])
    torch.testing.assert_close(small[1:], ratio * SHORT.betas[1:], rtol=1e-12, atol=0)
    assert (small[1:] < large[1:]).all()


def test_a_learned_variance_is_the_raw_output() -> None:
    raw = normals(SHORT.T, 1, 2, 2, dtype=torch.float32)
    found = LearnedDiagonal().log_variance(SHORT, raw, T_ALL, LIKE)
    assert found.dtype == torch.float64
    assert torch.equal(found, raw.double())


def test_a_learned_range_goes_from_beta_tilde_to_beta_in_the_log() -> None:
    small, middle, large = (
        LearnedRange().log_variance(SHORT, torch.full_like(LIKE, raw, dtype=torch.float32), T_ALL, LIKE)[:, 0, 0, 0]
        for raw in (-1, 0, 1)
    )
    torch.testing.assert_close(large, SHORT.betas.log(), rtol=1e-12, atol=0)  # at t = 1 too
    torch.testing.assert_close(
        small[1:], (SHORT.betas * (1 - SHORT.alpha_bar_prev) / (1 - SHORT.alpha_bar))[1:].log(), rtol=1e-12, atol=0
    )
    assert small[0] == small[1]
    torch.testing.assert_close(middle, (small + large) / 2, rtol=1e-12, atol=0)
    assert (
        LearnedRange().log_variance(SHORT, torch.full_like(LIKE, 3.0), T_ALL, LIKE)[5, 0, 0, 0] > large[5]
    )  # not clipped


def test_only_the_learned_variances_need_more_channels() -> None:
    outputs = {"fixed-beta": 1, "fixed-beta-tilde": 1, "learned": 2, "learned-range": 2}
    assert {name: v.outputs for name, v in VARIANCES.items()} == outputs


@pytest.mark.parametrize("variance", [LearnedDiagonal(), LearnedRange()])
def test_a_learned_variance_without_its_channels_is_an_error(variance: LearnedDiagonal | LearnedRange) -> None:
    with pytest.raises(ValueError, match="second half"):
        variance.log_variance(SHORT, None, T_ALL, LIKE)
