"""Schedules: every table against plain arithmetic, respacing, look-up."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusion_cases import SHORT, all_steps

from ddpm_bench.diffusion.schedule import SCHEDULES, Schedule, cosine, linear, linear_openai, quadratic
from ddpm_bench.errors import UserError


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_table_agrees_with_plain_arithmetic(name: str) -> None:
    schedule = SCHEDULES[name](50, 1e-4, 0.04)
    alpha_bar = 1.0
    for i, beta in enumerate(schedule.betas.tolist()):
        previous, alpha_bar = alpha_bar, alpha_bar * (1 - beta)
        expected = {
            "alpha": 1 - beta,
            "alpha_bar": alpha_bar,
            "alpha_bar_prev": previous,
            "sqrt_alpha_bar": math.sqrt(alpha_bar),
            "sqrt_one_minus_alpha_bar": math.sqrt(1 - alpha_bar),
            "beta_tilde": (1 - previous) / (1 - alpha_bar) * beta,
            "posterior_x0": math.sqrt(previous) * beta / (1 - alpha_bar),
            "posterior_xt": math.sqrt(1 - beta) * (1 - previous) / (1 - alpha_bar),
        }
        if i > 0:
            expected |= {"log_beta": math.log(beta), "log_beta_tilde": math.log(expected["beta_tilde"])}
        for table, value in expected.items():
            assert getattr(schedule, table)[i].item() == pytest.approx(value, rel=1e-12, abs=1e-15), (table, i + 1)


def test_the_paper_schedule_has_the_paper_values() -> None:
    schedule = linear(1000)
    assert schedule.betas[0].item() == 1e-4
    assert schedule.betas[-1].item() == pytest.approx(0.02, rel=1e-15)
    assert schedule.betas.diff().std() < 1e-17
    assert schedule.alpha_bar[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)


@pytest.mark.parametrize("T", [500, 1000, 4000])
def test_openais_linear_scales_both_ends_by_1000_over_T(T: int) -> None:
    """Theirs, written out: `linspace(1000 / T * 1e-4, 1000 / T * 0.02, T)`."""
    schedule = linear_openai(T)
    expected = np.linspace(1000 / T * 1e-4, 1000 / T * 0.02, T, dtype=np.float64)
    np.testing.assert_allclose(schedule.betas.numpy(), expected, rtol=1e-13)
    assert schedule.alpha_bar[-1].log().item() == pytest.approx(linear(1000).alpha_bar[-1].log().item(), rel=0.02)
    assert torch.equal(linear_openai(1000).betas, linear(1000).betas)


def test_openais_linear_refuses_a_chain_too_short_for_its_last_beta() -> None:
    with pytest.raises(
        UserError, match=r"'linear-openai' takes beta_T \* 1000 / T .* 0.02 \* 1000 / 20 is not below 1"
    ):
        linear_openai(20)


def test_quadratic_is_linear_in_the_square_root() -> None:
    roots = quadratic(30, 1e-4, 0.04).betas.sqrt()
    torch.testing.assert_close(roots, torch.linspace(0.01, 0.2, 30, dtype=torch.float64))


def test_cosine_has_the_closed_form_alpha_bar_until_its_cap() -> None:
    schedule = cosine(100)
    f = [math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(101)]
    expected = torch.tensor(f[1:100], dtype=torch.float64) / f[0]
    torch.testing.assert_close(schedule.alpha_bar[:99], expected, rtol=1e-11, atol=0)
    assert schedule.betas[-1] == 0.999


@pytest.mark.parametrize(("name", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_betas_agree_with_diffusers(name: str, theirs: str) -> None:
    expected = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule=theirs).betas
    torch.testing.assert_close(SCHEDULES[name](1000, 1e-4, 0.02).betas.float(), expected, rtol=1e-6, atol=1e-9)


def test_lookup_has_the_rank_and_dtype_asked_for() -> None:
    t = torch.tensor([1, 7, 20])
    for dtype in (torch.float32, torch.float64):
        found = SHORT.at("alpha_bar", t, torch.zeros(3, 1, 4, 4, dtype=dtype))
        assert found.shape == (3, 1, 1, 1)
        assert found.dtype == dtype
        assert found.flatten().tolist() == SHORT.alpha_bar[t - 1].to(dtype).tolist()
    assert SHORT.at("betas", t, torch.zeros(3, 5)).shape == (3, 1)


def test_a_table_first_used_in_inference_mode_serves_training() -> None:
    schedule, x = linear(5), torch.ones(1, 1, 1, 1, requires_grad=True)
    with torch.inference_mode():
        schedule.at("alpha", torch.tensor([1]), x)
    (schedule.at("alpha", torch.tensor([1]), x) * x).sum().backward()
    assert x.grad.item() == schedule.alpha[0].to(x.dtype).item()


@pytest.mark.parametrize("betas", [[], [0.1, 0.0], [0.1, 1.0], [-0.1], [math.nan], [[0.1]]])
def test_impossible_betas_are_refused(betas: list) -> None:
    with pytest.raises(UserError, match="beta"):
        Schedule(torch.tensor(betas, dtype=torch.float64))


def test_respacing_to_the_full_chain_changes_nothing() -> None:
    schedule = linear(1000)
    same = schedule.respaced(range(1, 1001))
    for table in ("betas", "alpha_bar", "log_beta", "log_beta_tilde", "posterior_x0", "posterior_xt"):
        torch.testing.assert_close(getattr(same, table), getattr(schedule, table), rtol=1e-10, atol=1e-15)
    assert torch.equal(same.network_steps, schedule.network_steps)


def test_respacing_keeps_the_marginals_and_composes() -> None:
    schedule = linear(100, 1e-3, 0.2)
    kept = [4, 9, 50, 100]
    strided = schedule.respaced(kept)
    torch.testing.assert_close(strided.alpha_bar, schedule.alpha_bar[torch.tensor(kept) - 1], rtol=1e-12, atol=0)
    assert strided.network_step(all_steps(strided)).tolist() == [3, 8, 49, 99]
    twice = strided.respaced([2, 4])
    torch.testing.assert_close(twice.betas, schedule.respaced([9, 100]).betas, rtol=1e-12, atol=0)
    assert twice.network_steps.tolist() == [8, 99]


@pytest.mark.parametrize("kept", [[], [0, 5], [5, 5], [7, 3], [5, 21]])
def test_impossible_kept_steps_are_refused(kept: list[int]) -> None:
    with pytest.raises(UserError, match="from at least 1 to at most 20"):
        SHORT.respaced(kept)


def test_a_chain_of_one_step_is_finite() -> None:
    one = SHORT.respaced([20])
    assert one.log_beta.isfinite().all()
    assert one.log_beta_tilde.isfinite().all()
