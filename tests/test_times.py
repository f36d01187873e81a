"""Time samplers: which t is drawn, with what weight, and what is remembered."""

import numpy as np
import pytest
import torch
from test_gpu_path import NoReading

from ddpm_bench.diffusion.times import LossSecondMoment, Uniform

CPU = torch.device("cpu")


class Sequential:
    """What improved-diffusion remembers, one loss after the other, in numpy."""

    def __init__(self, T: int, remembered: int = 10) -> None:
        self.T, self.remembered = T, remembered
        self.latest: list[list[float]] = [[] for _ in range(T)]

    def learn(self, t: torch.Tensor, losses: torch.Tensor) -> None:
        for step, loss in zip(t.tolist(), losses.tolist(), strict=True):
            self.latest[step - 1] = [*self.latest[step - 1], loss][-self.remembered :]

    def probabilities(self) -> np.ndarray:
        if any(len(each) < self.remembered for each in self.latest):
            return np.full(self.T, 1 / self.T)
        weights = np.sqrt(np.mean(np.array(self.latest) ** 2, axis=1))
        return weights / weights.sum() * (1 - 0.001) + 0.001 / self.T


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def losses_of(t: torch.Tensor, seed: int) -> torch.Tensor:
    """Larger at small t, and never twice the same."""
    return (1 + torch.rand(len(t), generator=generator(seed))) * 20 / t


def filled(T: int = 6, seed: int = 0) -> LossSecondMoment:
    times, t = LossSecondMoment(T), torch.arange(1, T + 1).repeat(10)
    times.learn(t, losses_of(t, seed))
    return times


@pytest.mark.parametrize("batch", [1, 7, 64, 300])
def test_what_is_learned_is_what_learning_one_after_the_other_gives(batch: int) -> None:
    """With 300 losses of 6 steps a batch has far more of one t than are remembered."""
    ours, theirs, T = LossSecondMoment(6), Sequential(6), 6
    known = []
    for i in range(1 + 400 // batch):
        t = torch.randint(1, T + 1, (batch,), generator=generator(i)) if i % 3 else torch.full((batch,), 1 + i % T)
        losses = losses_of(t, i)
        ours.learn(t, losses)
        theirs.learn(t, losses)
        np.testing.assert_allclose(ours.probabilities(CPU).numpy(), theirs.probabilities(), rtol=1e-12)
        known.append(min(map(len, theirs.latest)) >= 10)
    assert known[-1] and (batch > 64 or not known[0])


def test_until_every_t_has_ten_losses_all_are_alike_and_all_weights_one() -> None:
    times = filled()
    times.heard[3] = 9
    assert torch.equal(times.probabilities(CPU), torch.full((6,), 1 / 6, dtype=torch.float64))
    t, weight = times.draw(1000, generator())
    assert torch.equal(weight, torch.ones(1000)) and t.unique().tolist() == [1, 2, 3, 4, 5, 6]
    times.learn(torch.tensor([3]), torch.tensor([1.0]))
    assert times.probabilities(CPU).std() > 0.05


@pytest.mark.parametrize("seed", range(5))
def test_the_weighted_loss_has_the_mean_of_uniform_t_whatever_was_learned(seed: int) -> None:
    times = filled(seed=seed)
    times.losses *= torch.rand(7, 1, generator=generator(seed)) ** 8
    p, L = times.probabilities(CPU), torch.rand(6, generator=generator(seed), dtype=torch.float64)
    t, weight = times.draw(2000, generator(seed))
    assert p.min() >= 0.001 / 6 and p.sum().item() == pytest.approx(1, rel=1e-12)
    expected = torch.zeros(6, dtype=torch.float64)
    expected[t - 1] = weight.double() * p[t - 1]
    drawn = expected > 0
    torch.testing.assert_close(expected[drawn], torch.full_like(expected[drawn], 1 / 6), rtol=1e-6, atol=0)
    assert (p * L / (6 * p)).sum().item() == pytest.approx(L.mean().item(), rel=1e-12)


def test_t_is_drawn_as_often_as_its_probability_says() -> None:
    times, count = filled(), 200_000
    t, _ = times.draw(count, generator())
    p = times.probabilities(CPU)
    expected, found = count * p, t.bincount(minlength=7)[1:]
    assert ((found - expected).abs() < 4 * (expected * (1 - p)).sqrt()).all()
    assert found[0] > 3 * found[-1]


def test_a_long_chain_draws_both_its_ends() -> None:
    times = LossSecondMoment(4000)
    t, _ = times.draw(100_000, generator())
    assert t.min() == 1 and t.max() == 4000


def test_what_was_learned_is_taken_up_bitwise() -> None:
    times, other = filled(), LossSecondMoment(6)
    other.load_state({name: held.clone() for name, held in times.state().items()})
    for each in (times, other):
        each.learn(torch.tensor([2, 2, 5]), torch.tensor([9.0, 8.0, 7.0]))
    (a, b), (c, d) = times.draw(50, generator()), other.draw(50, generator())
    assert torch.equal(a, c) and torch.equal(b, d)


@pytest.mark.parametrize("times", [Uniform(6), LossSecondMoment(6), filled()])
def test_nothing_waits_for_the_device(times) -> None:
    draws = generator()
    with NoReading():
        t, _ = times.draw(40, draws)
        times.learn(t, torch.ones(40))
