"""Parameterizations: three ways to say the same reverse process."""

import pytest
import torch
from diffusion_cases import SHORT, all_steps, levels, normals, some_network

from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS
from ddpm_bench.diffusion.process import posterior_mean, q_sample

T_ALL = all_steps(SHORT)
X0 = levels(SHORT.T, 1, 3, 3)
EPS = normals(SHORT.T, 1, 3, 3)
X_T = q_sample(SHORT, X0, T_ALL, EPS)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_a_network_that_hits_its_target_knows_x0_and_mu_tilde(name: str) -> None:
    p = PARAMETERIZATIONS[name]
    target = p.target(SHORT, X0, X_T, EPS, T_ALL)
    x0 = p.x0(SHORT, target, X_T, T_ALL)
    torch.testing.assert_close(x0, X0, rtol=0, atol=1e-12)
    mu_tilde = posterior_mean(SHORT, X0, X_T, T_ALL)
    torch.testing.assert_close(p.mean(SHORT, target, x0, X_T, T_ALL), mu_tilde, rtol=0, atol=1e-12)


def test_the_targets_are_those_of_the_paper() -> None:
    targets = {name: p.target(SHORT, X0, X_T, EPS, T_ALL) for name, p in PARAMETERIZATIONS.items()}
    alpha, alpha_bar = (table.reshape(-1, 1, 1, 1) for table in (SHORT.alpha, SHORT.alpha_bar))
    assert torch.equal(targets["eps"], EPS)
    assert torch.equal(targets["x0"], X0)
    eq_10 = (X_T - (1 - alpha) / (1 - alpha_bar).sqrt() * EPS) / alpha.sqrt()
    torch.testing.assert_close(targets["mu"], eq_10, rtol=0, atol=1e-12)


def test_the_mean_of_a_predicted_eps_is_equation_11() -> None:
    output = some_network()(X_T, T_ALL - 1)
    eps = PARAMETERIZATIONS["eps"]
    mean = eps.mean(SHORT, output, eps.x0(SHORT, output, X_T, T_ALL), X_T, T_ALL)
    alpha, alpha_bar = (table.reshape(-1, 1, 1, 1) for table in (SHORT.alpha, SHORT.alpha_bar))
    eq_11 = (X_T - (1 - alpha) / (1 - alpha_bar).sqrt() * output) / alpha.sqrt()
    torch.testing.assert_close(mean, eq_11, rtol=0, atol=1e-12)


def test_one_prediction_written_in_three_ways_has_one_mean() -> None:
    predicted = levels(SHORT.T, 1, 3, 3, seed=5)
    a = SHORT.alpha_bar.reshape(-1, 1, 1, 1)
    outputs = {
        "x0": predicted,
        "eps": (X_T - a.sqrt() * predicted) / (1 - a).sqrt(),
        "mu": posterior_mean(SHORT, predicted, X_T, T_ALL),
    }
    expected = outputs["mu"]
    for name, output in outputs.items():
        p = PARAMETERIZATIONS[name]
        x0 = p.x0(SHORT, output, X_T, T_ALL)
        torch.testing.assert_close(x0, predicted, rtol=0, atol=1e-12)
        torch.testing.assert_close(p.mean(SHORT, output, x0, X_T, T_ALL), expected, rtol=0, atol=1e-12)
