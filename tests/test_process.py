"""The forward process and its posterior: against step-by-step noising and brute-force Bayes."""

import pytest
import torch
from diffusion_cases import SHORT, all_steps, levels, normals

from ddpm_bench.diffusion.process import posterior, posterior_mean, precise, q_sample


def test_q_sample_has_the_moments_of_step_by_step_noising() -> None:
    scale, variance = 1.0, 0.0
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for t, beta in enumerate(SHORT.betas.tolist(), start=1):
        scale, variance = scale * (1 - beta) ** 0.5, variance * (1 - beta) + beta
        steps = torch.tensor([t])
        assert q_sample(SHORT, one, steps, 0 * one).item() == pytest.approx(scale, rel=1e-12)
        assert q_sample(SHORT, 0 * one, steps, one).item() == pytest.approx(variance**0.5, rel=1e-12)


@pytest.mark.parametrize("t", [2, 7, 20])
@pytest.mark.parametrize(("x0", "x_t"), [(0.3, -0.8), (-1.0, 1.5)])
def test_posterior_agrees_with_brute_force_bayes(t: int, x0: float, x_t: float) -> None:
    grid = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    alpha_bar_prev, beta = SHORT.alpha_bar[t - 2], SHORT.betas[t - 1]
    log_prior = -((grid - alpha_bar_prev.sqrt() * x0) ** 2) / (2 * (1 - alpha_bar_prev))
    log_likelihood = -((x_t - (1 - beta).sqrt() * grid) ** 2) / (2 * beta)
    weights = torch.softmax(log_prior + log_likelihood, dim=0)
    mean = (weights * grid).sum()
    variance = (weights * (grid - mean) ** 2).sum()

    shape = (1, 1, 1, 1)
    x0_, x_t_ = (torch.full(shape, v, dtype=torch.float64) for v in (x0, x_t))
    found = posterior(SHORT, x0_, x_t_, torch.tensor([t]))
    assert found.mean.item() == pytest.approx(mean.item(), abs=1e-10)
    assert found.log_variance.exp().item() == pytest.approx(variance.item(), rel=1e-8)


def test_posterior_and_x_t_together_give_back_the_marginal_of_the_step_before() -> None:
    for t in all_steps(SHORT).tolist():
        i = t - 1
        scale = SHORT.posterior_x0[i] + SHORT.posterior_xt[i] * SHORT.alpha_bar[i].sqrt()
        variance = SHORT.posterior_xt[i] ** 2 * (1 - SHORT.alpha_bar[i]) + SHORT.beta_tilde[i]
        torch.testing.assert_close(scale, SHORT.alpha_bar_prev[i].sqrt(), rtol=1e-12, atol=0)
        torch.testing.assert_close(variance, 1 - SHORT.alpha_bar_prev[i], rtol=1e-12, atol=1e-15)


def test_the_posterior_mean_of_the_first_step_is_x0() -> None:
    x0, x_1 = levels(1, 1, 4, 4), normals(1, 1, 4, 4)
    torch.testing.assert_close(posterior_mean(SHORT, x0, x_1, torch.tensor([1])), x0, rtol=1e-12, atol=0)


def test_each_row_is_noised_to_its_own_step() -> None:
    x0, eps, t = levels(3, 1, 2, 2), normals(3, 1, 2, 2), torch.tensor([20, 1, 5])
    rows = [q_sample(SHORT, x0[i : i + 1], t[i : i + 1], eps[i : i + 1]) for i in range(3)]
    assert torch.equal(q_sample(SHORT, x0, t, eps), torch.cat(rows))


def test_precise_is_float64_on_the_cpu() -> None:
    assert precise(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float64
