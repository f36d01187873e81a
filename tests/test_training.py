"""The loop: what a step does, what it draws, which t it is trained at, and that divergence is a result."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import NETWORK, SETTINGS, Loss, SizedLoss, batches, images, resumed, trainer
from torch import Tensor

from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.objective import LSimple
from ddpm_bench.diffusion.times import TimeSampler, Uniform
from ddpm_bench.errors import UserError
from ddpm_bench.networks.unet import UNet
from ddpm_bench.records.record import Divergence
from ddpm_bench.training import snapshots
from ddpm_bench.training.divergence import no_distance
from ddpm_bench.training.trainer import warmup

# ---- one step -------------------------------------------------------------------------------------------------------------


def test_steps_are_algorithm_1_with_warmed_up_clipped_adam_and_an_average(tmp_path: Path) -> None:
    """Against the loop written out, with Adam's equations for PyTorch's fused kernel."""
    ours = trainer(tmp_path)
    torch.manual_seed(0)
    network, drawn = UNet(1, 1, 8, NETWORK), batches(flips=True)
    weights = list(network.parameters())
    first, second = ([torch.zeros_like(p) for p in weights] for _ in range(2))
    average = [p.detach().clone() for p in weights]
    losses, norms = [], []
    for step in range(6):
        x0, t, eps, weight, _ = drawn.at(step)
        assert weight is None
        a = ours.training.denoiser.schedule.alpha_bar[t - 1].float()[:, None, None, None]
        loss = (network(a.sqrt() * x0 + (1 - a).sqrt() * eps, t - 1) - eps).square().mean()
        gradients = torch.autograd.grad(loss, weights)
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        losses.append(loss.item())
        norms.append(norm.item())
        rate = 1e-2 * min(1, (step + 1) / 5)
        decay = min(0.9, (1 + step) / (10 + step))
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(weights, gradients, strict=True)):
                g = g * min(1, 0.05 / norm.item())
                first[i] = 0.9 * first[i] + 0.1 * g
                second[i] = 0.999 * second[i] + 0.001 * g**2
                corrected = (second[i] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                p -= rate * first[i] / (1 - 0.9 ** (step + 1)) / corrected
                average[i] = decay * average[i] + (1 - decay) * p
    ours.run(6)
    assert min(norms) > 0.05  # so clipping did something
    for p, q, name in zip(weights, average, ours.ema.weights, strict=True):
        torch.testing.assert_close(ours.network.get_parameter(name), p, rtol=0, atol=2e-5)
        torch.testing.assert_close(ours.ema.weights[name], q, rtol=0, atol=2e-5)
    assert [point.step for point in ours.log] == [3, 6]
    for point, part in zip(ours.log, (slice(0, 3), slice(3, 6)), strict=True):
        assert point.loss == pytest.approx(sum(losses[part]) / 3, rel=1e-3)
        assert point.gradient_norm == pytest.approx(sum(norms[part]) / 3, rel=1e-2)


def test_without_a_limit_gradients_are_taken_as_they_are(tmp_path: Path) -> None:
    weights = {}
    for clip in (None, 1e6, 0.05):
        run = trainer(tmp_path / str(clip), settings=SETTINGS.model_copy(update={"clip": clip}))
        assert run.run(3) is None
        weights[clip] = torch.cat([p.detach().flatten() for p in run.network.parameters()])
    assert torch.equal(weights[None], weights[1e6]) and not torch.equal(weights[None], weights[0.05])


def test_warmup_is_linear_to_one_and_wastes_no_step() -> None:
    assert [warmup(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert warmup(0, 0) == 1


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"log_every": 30, "checkpoint_every": 1000, "clip": 1.0})
    run = trainer(tmp_path, settings=settings)
    assert run.run(120) is None
    assert run.log[-1].loss < 0.7 * run.log[0].loss


def test_dropout_is_on_in_training_and_off_in_the_averaged_network(tmp_path: Path) -> None:
    modes: set[bool] = set()
    run = trainer(tmp_path)
    run.network.eval()
    run.network.register_forward_hook(lambda module, _, __: modes.add(module.training))
    run.run(2)
    assert modes == {True}
    assert not any(module.training for module in run.ema_network().modules())
    assert all(torch.equal(p, run.ema.weights[name]) for name, p in run.ema_network().named_parameters())


def test_a_run_too_short_for_its_average_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="ddpm_bench")
    settings = SETTINGS.model_copy(update={"ema_decay": 0.9999, "ema_ramp": False})
    trainer(tmp_path / "a", settings=settings).run(2)
    assert "99% random initial" in caplog.text
    caplog.clear()
    trainer(tmp_path / "b").run(2)
    assert "random initial" not in caplog.text


# ---- randomness -----------------------------------------------------------------------------------------------------------


def test_a_steps_draws_depend_on_seed_and_step_alone() -> None:
    def draw(seed: int, *steps: int) -> list[Tensor]:
        drawn = batches(flips=True, seed=seed)
        for step in steps:
            found = drawn.at(step)
        return [found.x0, found.t, found.eps, torch.rand(3)]  # and what dropout would see

    for a, b in zip(draw(3, 7), draw(3, 0, 9, 2, 7), strict=True):
        assert torch.equal(a, b)
    for other in (draw(4, 7), draw(3, 8)):
        assert not any(torch.equal(a, b) for a, b in zip(draw(3, 7)[2:], other[2:], strict=True))


@pytest.mark.parametrize("batch", [1, 4, 5, 10, 23])
def test_every_image_comes_once_an_epoch_in_an_order_of_its_own(batch: int) -> None:
    drawn = batches(size=batch)
    seen = torch.cat([drawn._indices(step) for step in range(-(-50 // batch))])[:50].view(5, 10)
    assert torch.equal(seen.sort(dim=1).values, torch.arange(10).expand(5, 10))
    assert len({tuple(epoch.tolist()) for epoch in seen}) == 5


def test_flips_mirror_about_half_of_the_images_left_to_right_and_can_be_off() -> None:
    known = to_model(images())
    plain, flipped = (torch.cat([batches(flips=flips).at(step).x0 for step in range(50)]) for flips in (False, True))
    straight, mirrored = (
        [any(torch.equal(x, y) for y in variants) for x in flipped] for variants in (known, known.flip(3))
    )
    assert all(any(torch.equal(x, y) for y in known) for x in plain)
    assert [a != b for a, b in zip(straight, mirrored, strict=True)] == [True] * 200
    assert 70 < sum(mirrored) < 130


def test_t_is_uniform_on_1_to_T_and_eps_is_standard_normal() -> None:
    drawn = batches(size=100)
    found = [drawn.at(step) for step in range(20)]
    t, eps = torch.cat([batch.t for batch in found]), torch.cat([batch.eps for batch in found])
    assert all(batch.weight is None for batch in found)
    counts = t.bincount(minlength=11)
    assert counts[0] == 0 and len(counts) == 11 and counts[1:].min() > 140 and counts.max() < 260
    assert abs(eps.mean().item()) < 0.02 and eps.std().item() == pytest.approx(1, abs=0.02)


def test_a_run_leaves_the_callers_generators_alone(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run.run(2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"given": images().float()}, "uint8"),
        ({"given": images()[:0]}, "N > 0"),
        ({"seed": -1}, "seed = -1 is negative"),
    ],
)
def test_bad_arguments_are_refused_by_name(change: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        batches(**change)


# ---- which t --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1])
def test_the_loss_of_a_step_is_the_weighted_mean_of_its_losses(tmp_path: Path, step: int) -> None:
    """By hand: the logged loss, and the gradient that it has."""
    run = trainer(tmp_path, loss=SizedLoss(), settings=SETTINGS.model_copy(update={"log_every": 1}))
    if step:
        run.run(step)
    network = copy.deepcopy(run.network).train()
    batch = run.batches.at(step)
    assert batch.weight is not None and (step == 0) == bool((batch.weight == 1).all())
    denoiser = replace(run.training.denoiser, network=network)
    losses = LSimple()(denoiser, batch.x0, batch.t, batch.eps)
    loss = (losses * batch.weight).sum() / 4
    norm = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]).norm()
    run.run(step + 1)
    assert run.log[-1].loss == pytest.approx(loss.item(), rel=1e-6)
    assert run.log[-1].gradient_norm == pytest.approx(norm.item(), rel=1e-5)
    assert step == 0 or run.log[-1].loss != pytest.approx(losses.mean().item(), rel=1e-3)


def test_a_time_sampler_hears_of_every_loss_before_it_is_weighted(tmp_path: Path) -> None:
    class Doubling(Uniform):
        heard: list[tuple[list[int], list[float]]]

        def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            return super().draw(count, generator)[0], torch.full((count,), 2.0)

        def learn(self, t: Tensor, losses: Tensor) -> None:
            self.heard.append((t.tolist(), losses.tolist()))

    class Doubled(Loss):
        def times(self, T: int) -> TimeSampler:
            return Doubling(T)

    Doubling.heard = []
    settings = SETTINGS.model_copy(update={"log_every": 1})
    run = trainer(tmp_path, loss=Doubled(), settings=settings)
    run.run(3)
    assert [t for t, _ in Doubling.heard] == [batches(flips=True).at(step).t.tolist() for step in range(3)]
    for point, (_, losses) in zip(run.log, Doubling.heard, strict=True):
        assert point.loss == pytest.approx(2 * sum(losses) / 4, rel=1e-6)


def test_what_is_learned_of_t_changes_what_is_drawn_and_lies_in_the_snapshot(tmp_path: Path) -> None:
    run, uniform = trainer(tmp_path / "a", loss=SizedLoss()), trainer(tmp_path / "b")
    assert run.times.state() == {}
    run.run(5)
    uniform.run(5)
    held = load_file(tmp_path / "a" / "step-000005" / "times.safetensors")
    assert held.keys() == {"sizes"} and torch.equal(held["sizes"], run.times.state()["sizes"])
    assert not (tmp_path / "b" / "step-000005" / "times.safetensors").exists()
    drawn = batches(size=100, times=run.times)
    counts = torch.cat([drawn.at(step).t for step in range(50)]).bincount(minlength=11)[1:]
    share = (0.1 + held["sizes"]) / (0.1 + held["sizes"]).sum()
    spread = (5000 * share * (1 - share)).sqrt()
    assert ((counts - 5000 * share).abs() < 4 * spread).all() and ((counts - 500).abs() > 4 * spread).any()


def test_a_run_goes_on_with_what_it_had_learned_of_t_or_not_at_all(tmp_path: Path) -> None:
    trainer(tmp_path, loss=SizedLoss()).run(4)
    path = tmp_path / "step-000004" / "times.safetensors"
    for damage in (lambda: path.write_bytes(path.read_bytes()[:-4]), path.unlink):
        damage()
        other = trainer(tmp_path, loss=SizedLoss())
        assert other.resume() == 0 and other.times.state() == {}
        (tmp_path / "step-000004.damaged-1").rename(path.parent)
    narrow = UNet(1, 1, 8, NETWORK.model_copy(update={"base": 12}))
    trainer(tmp_path / "b", loss=SizedLoss()).run(4)
    other = trainer(tmp_path / "b", loss=SizedLoss(), network=narrow)
    with pytest.raises(UserError, match="another network"):
        other.resume()
    assert other.times.state() == {}


# ---- divergence -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, 5, 6, 7])
@pytest.mark.parametrize(
    ("kind", "reason"), [("nan_at", "the loss is not finite (nan)"), ("steep_at", "the gradient is not finite")]
)
def test_divergence_has_the_first_bad_step_and_its_reason_and_is_remembered(
    tmp_path: Path, step: int, kind: str, reason: str
) -> None:
    expected = Divergence(step=step, reason=reason)
    run = trainer(tmp_path, loss=Loss(**{kind: step}), keep=9)
    assert run.run(12) == expected == run.divergence
    assert run.step == step
    assert all(point.step < step for point in run.log)
    for snapshot in snapshots.snapshots(tmp_path):
        assert snapshots.load_state(snapshot)["step"] < step
        for stem in ("network", "ema", "optimizer"):
            assert all(value.isfinite().all() for value in load_file(snapshot / f"{stem}.safetensors").values())
    untouched = Loss()
    again = trainer(tmp_path, loss=untouched)
    assert again.resume() == step
    assert again.run(12) == expected and untouched.calls == 0
    assert again.log == run.log
    with pytest.raises(UserError, match=f"diverged at step {step}"):
        again.ema_network()
    with pytest.raises(UserError, match="another configuration"):
        resumed(tmp_path, identity={"base": 9})


def test_a_huge_learning_rate_diverges_for_real(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30, "clip": 1e30, "warmup": 0})
    found = trainer(tmp_path, settings=settings).run(12)
    assert found is not None and 2 <= found.step <= 12


def test_a_distance_that_is_not_finite_is_divergence_and_a_poor_one_is_not() -> None:
    assert no_distance(1e9, 7) is None
    for fd in (float("nan"), float("inf")):
        found = no_distance(fd, 7)
        assert found is not None and found.step == 7 and str(fd) in found.reason
