"""The loop: what a step does, that stopping changes nothing, and that divergence is a result."""

import copy
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import unsealed
from torch import Tensor, nn

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import TrainingSettings
from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import LSimple
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.times import LossSecondMoment, TimeSampler, Uniform
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.files import sha256_file
from ddpm_bench.networks.unet import UNet
from ddpm_bench.records.record import Divergence
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import SEAL
from ddpm_bench.training import snapshots
from ddpm_bench.training.batches import Batches
from ddpm_bench.training.divergence import no_distance
from ddpm_bench.training.trainer import Trainer, Training, warmup

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(
    steps=100,
    batch=4,
    learning_rate=1e-2,
    warmup=5,
    clip=0.05,
    ema_decay=0.9,
    ema_ramp=True,
    checkpoint_every=4,
    log_every=3,
)
NETWORK = UNetSettings(base=8, multipliers=(1,), blocks=1, attention=(), groups=4, dropout=0.2)


class Loss(LSimple):
    """L_simple that can be made to fail, in value or in gradient, at one call (the first is 1), or to do something there."""

    def __init__(self, nan_at: int = 0, steep_at: int = 0, signal_at: int = 0) -> None:
        self.calls, self.nan_at, self.steep_at, self.signal_at = 0, nan_at, steep_at, signal_at

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        self.calls += 1
        loss = super().__call__(denoiser, x0, t, eps)
        if self.calls == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.calls == self.nan_at:
            return loss * float("nan")
        return loss + (loss * 0).sqrt() if self.calls == self.steep_at else loss  # d sqrt(u) at 0 is infinite


class Sized:
    """Draws t in proportion to 0.1 + its latest loss, and weighs the losses so that their mean stays what it estimates.

    It holds nothing before it has learned.
    """

    def __init__(self, T: int) -> None:
        self.T = T
        self.sizes: Tensor | None = None

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        sizes = torch.ones(self.T) if self.sizes is None else 0.1 + self.sizes
        share = sizes / sizes.sum()
        index = torch.multinomial(share, count, replacement=True, generator=generator)
        return index + 1, 1 / (self.T * share[index])

    def learn(self, t: Tensor, losses: Tensor) -> None:
        assert not losses.requires_grad
        sizes = torch.ones(self.T) if self.sizes is None else self.sizes
        self.sizes = sizes.scatter_reduce(0, t - 1, losses, "amax", include_self=False)

    def state(self) -> dict[str, Tensor]:
        return {} if self.sizes is None else {"sizes": self.sizes}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.sizes = state["sizes"]


class SizedLoss(Loss):
    """Trained at the t that `Sized` draws."""

    def times(self, T: int) -> TimeSampler:
        return Sized(T)


class SquaresLoss(Loss):
    """Trained at the t that improved DDPM's sampler draws."""

    def times(self, T: int) -> TimeSampler:
        return LossSecondMoment(T)


def images(count: int = 10) -> Tensor:
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def trainer(folder: Path, *, settings: TrainingSettings = SETTINGS, loss: LSimple | None = None, seed: int = 3,
            identity: dict[str, object] | None = None, keep: int = 1, network: nn.Module | None = None,
            sampling: SamplingSettings | None = None) -> Trainer:  # fmt: skip
    torch.manual_seed(0)
    network = network or UNet(1, 1, 8, NETWORK)
    diffusion = Diffusion(linear(10, 1e-2, 0.9), Eps(), FixedBeta())
    training = Training(
        Denoiser(diffusion, network, (1, 8, 8), clip_x0=False), loss or LSimple(), images(), settings, seed,
        identity or {"base": 8}, sampling=sampling or SamplingSettings(),
    )  # fmt: skip
    return Trainer(training, folder, Runtime(keep=keep))


def batches(
    given: Tensor | None = None, size: int = 4, flips: bool = False, seed: int = 3, times: TimeSampler | None = None
) -> Batches:
    """Those of `trainer`, unless told otherwise."""
    given = images() if given is None else given
    return Batches(given, size, flips=flips, seed=seed, times=times or Uniform(10), device=CPU)


def resumed(folder: Path, **changed: object) -> Trainer:
    again = trainer(folder, **changed)
    again.resume()
    return again


def assert_same(a: Trainer, b: Trainer) -> None:
    """Bitwise: weights, average, moments, log, and what was learned of t."""
    assert a.step == b.step and a.log == b.log
    assert a.times.state().keys() == b.times.state().keys()
    assert all(torch.equal(held, b.times.state()[name]) for name, held in a.times.state().items())
    for (name, p), q in zip(a.network.named_parameters(), b.network.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert torch.equal(a.ema.weights[name], b.ema.weights[name]), name
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(a.optimizer.state[p][moment], b.optimizer.state[q][moment]), (name, moment)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


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


# ---- stopping and going on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Loss, SizedLoss, SquaresLoss])
@pytest.mark.parametrize("stops", [[4], [5], [1, 2, 7]])
def test_stopped_and_resumed_equals_uninterrupted_bitwise(tmp_path: Path, stops: list[int], kind: type[Loss]) -> None:
    straight = trainer(tmp_path / "a", loss=kind())
    straight.run(10)
    for stop in stops:
        resumed(tmp_path / "b", loss=kind()).run(stop)
    again = trainer(tmp_path / "b", loss=kind())
    assert again.resume() == stops[-1]
    again.run(10)
    assert_same(again, straight)
    assert [line["step"] for line in lines(tmp_path / "b")] == [3, 6, 9]


@pytest.mark.parametrize("stops", [[2], [14], [2, 14]])
def test_importance_sampling_goes_on_bitwise_from_before_and_after_it_began(tmp_path: Path, stops: list[int]) -> None:
    def begun(run: Trainer) -> bool:
        return bool((run.times.state()["heard"][1:] >= 10).all())

    settings = SETTINGS.model_copy(update={"batch": 16})
    straight = trainer(tmp_path / "a", loss=SquaresLoss(), settings=settings)
    straight.run(18)
    for stop in stops:
        part = resumed(tmp_path / "b", loss=SquaresLoss(), settings=settings)
        part.run(stop)
        assert begun(part) == (stop == 14)
    again = resumed(tmp_path / "b", loss=SquaresLoss(), settings=settings)
    assert begun(again) == (stops[-1] == 14)
    again.run(18)
    assert begun(again)
    assert_same(again, straight)
    assert (straight.batches.at(18).weight != 1).all()


@pytest.mark.parametrize("kind", [Loss, SizedLoss, SquaresLoss])
def test_killed_by_the_system_and_resumed_equals_uninterrupted_bitwise(tmp_path: Path, kind: type[Loss]) -> None:
    program = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch
        from pathlib import Path
        from test_training import {kind.__name__}, trainer
        torch.set_num_threads({torch.get_num_threads()})
        trainer(Path({str(tmp_path / "b")!r}), loss={kind.__name__}()).run(1_000_000)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stderr=subprocess.PIPE) as child:
        try:
            while child.poll() is None and not any(
                found.name >= "step-000008" for found in snapshots.snapshots(tmp_path / "b")
            ):
                time.sleep(0.02)
            assert child.poll() is None, child.stderr.read().decode()
        finally:
            child.kill()
    again = trainer(tmp_path / "b", loss=kind())
    found = again.resume()
    assert found >= 8 and found % SETTINGS.checkpoint_every == 0
    again.run(found + 3)
    straight = trainer(tmp_path / "a", loss=kind())
    straight.run(found + 3)
    assert_same(again, straight)
    assert [line["step"] for line in lines(tmp_path / "b")] == [point.step for point in straight.log]


def test_a_signal_saves_and_interrupts_and_the_run_goes_on(tmp_path: Path) -> None:
    with Stop(), pytest.raises(Interrupted):
        trainer(tmp_path / "b", loss=Loss(signal_at=6)).run(10)
    again = trainer(tmp_path / "b")
    assert again.resume() == 6
    again.run(10)
    straight = trainer(tmp_path / "a")
    straight.run(10)
    assert_same(again, straight)


def test_log_lines_beyond_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.run(4)
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write('{"step": 6, "loss": 1.0}\n{"step": 9, "lo')
    resumed(tmp_path).run(7)
    assert [line["step"] for line in lines(tmp_path)] == [3, 6]
    assert set(lines(tmp_path)[0]) == {"step", "loss", "gradient_norm", "seconds", "images_per_s"}
    seconds = [line["seconds"] for line in lines(tmp_path)]
    assert 0 < seconds[0] < seconds[1]


def test_a_log_without_a_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 3, "loss": 1.0}\n')
    run = trainer(tmp_path)
    assert run.resume() == 0
    run.run(3)
    assert len(lines(tmp_path)) == 1


def test_snapshots_come_at_intervals_and_at_the_end_and_keep_limits_them(tmp_path: Path) -> None:
    trainer(tmp_path, keep=2).run(9)
    assert [path.name for path in snapshots.snapshots(tmp_path)] == ["step-000008", "step-000009"]
    weights, metadata = snapshots.load_weights(tmp_path)
    about = {"step": 9, "seed": 3, "identity": {"base": 8}, "sampling": SamplingSettings().model_dump(mode="json")}
    assert metadata == about | {"sha256": sha256_file(tmp_path / "step-000009" / "ema.safetensors")}
    run = resumed(tmp_path)
    assert all(torch.equal(weights[name], p) for name, p in run.ema_network().state_dict().items())
    with pytest.raises(UserError, match="keep = 0"):
        trainer(tmp_path, keep=0)


def test_a_snapshot_has_the_hash_of_its_averaged_weights_and_of_all_before(tmp_path: Path) -> None:
    trainer(tmp_path, keep=9).run(9)
    hashes = {
        str(step): sha256_file(tmp_path / f"step-{step:06d}" / "ema.safetensors") for step in (4, 8, 9)
    }  # fmt: skip
    assert len(set(hashes.values())) == 3
    assert snapshots.load_state(tmp_path / "step-000009")["weights"] == hashes
    again = resumed(tmp_path)
    assert again.weights == hashes
    again.run(10)
    assert [path.name for path in snapshots.snapshots(tmp_path)] == ["step-000010"]
    ten = sha256_file(tmp_path / "step-000010" / "ema.safetensors")
    assert again.weights == snapshots.load_state(tmp_path / "step-000010")["weights"] == hashes | {"10": ten}


def test_a_snapshot_of_before_hashes_were_kept_has_its_own(tmp_path: Path) -> None:
    trainer(tmp_path).run(4)
    unsealed(tmp_path / "step-000004", "weights", "sampling")
    assert resumed(tmp_path).weights == {"4": sha256_file(tmp_path / "step-000004" / "ema.safetensors")}


def test_going_on_with_other_sampling_notes_it_and_changes_nothing_else(tmp_path: Path) -> None:
    trainer(tmp_path / "a").run(8)
    trainer(tmp_path / "b").run(4)
    snapshot = tmp_path / "b" / "step-000004"
    before, files = snapshots.load_state(snapshot), {path: sha256_file(path) for path in snapshot.glob("*.safetensors")}
    assert before["sampling"] == SamplingSettings().model_dump(mode="json")
    other = SamplingSettings(steps=5, clip_x0=False)
    again = resumed(tmp_path / "b", sampling=other)
    after = snapshots.load_state(snapshot)
    assert after == before | {"sampling": other.model_dump(mode="json"), SEAL: after[SEAL]}
    assert {path: sha256_file(path) for path in files} == files
    assert SamplingSettings(**snapshots.load_weights(tmp_path / "b")[1]["sampling"]) == other
    again.run(8)
    assert SamplingSettings(**snapshots.load_weights(tmp_path / "b")[1]["sampling"]) == other
    for stem in ("network", "ema", "optimizer"):
        one, two = (tmp_path / name / "step-000008" / f"{stem}.safetensors" for name in "ab")
        assert sha256_file(one) == sha256_file(two)


def test_finished_is_finished(tmp_path: Path) -> None:
    trainer(tmp_path).run(4)
    loss = Loss()
    again = resumed(tmp_path, loss=loss)
    assert again.run(4) is None and again.run(3) is None
    assert loss.calls == 0 and again.step == 4


def test_checkpoints_are_neither_overwritten_nor_taken_up_unasked(tmp_path: Path) -> None:
    trainer(tmp_path).run(4)
    with pytest.raises(UserError, match=r"has snapshots already.*resume"):
        trainer(tmp_path).run(4)
    trainer(tmp_path / "b", loss=Loss(nan_at=1)).run(4)
    with pytest.raises(UserError, match=r"has snapshots already.*resume"):
        trainer(tmp_path / "b").run(4)


def test_another_identity_or_seed_is_refused_with_the_difference(tmp_path: Path) -> None:
    trainer(tmp_path, identity={"network": {"base": 8}}).run(1)
    with pytest.raises(UserError, match=r"network\.base: was 8, now 16"):
        resumed(tmp_path, identity={"network": {"base": 16}})
    with pytest.raises(UserError, match="seed: was 3, now 4"):
        resumed(tmp_path, identity={"network": {"base": 8}}, seed=4)


def test_weights_of_another_network_are_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    trainer(tmp_path).run(1)
    other = trainer(tmp_path, network=UNet(1, 1, 8, NETWORK.model_copy(update={"base": 12})))
    before = [p.clone() for p in other.network.parameters()]
    with pytest.raises(UserError, match="another network"):
        other.resume()
    assert all(torch.equal(p, q) for p, q in zip(other.network.parameters(), before, strict=True))


@pytest.mark.parametrize("file", ["network", "ema", "optimizer", "state"])
@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
def test_of_a_damaged_snapshot_the_one_before_is_gone_on_from_and_it_is_said(
    tmp_path: Path, file: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, keep=2).run(9)
    straight = {path.name: sha256_file(path) for path in (tmp_path / "step-000009").glob("*.safetensors")}
    assert [path.name for path in snapshots.snapshots(tmp_path)] == ["step-000008", "step-000009"]
    (path,) = (tmp_path / "step-000009").glob(f"{file}.*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.unlink() if how == "missing" else path.write_bytes(content[:-100] if how == "truncated" else content)
    with caplog.at_level("INFO", "ddpm_bench"):
        again = resumed(tmp_path, keep=2)
    assert again.step == 8 and str(path) in caplog.text and "step-000009.damaged-1" in caplog.text
    again.run(9)
    assert {path.name: sha256_file(path) for path in (tmp_path / "step-000009").glob("*.safetensors")} == straight
    assert (tmp_path / "step-000009.damaged-1").is_dir()


def test_without_a_whole_snapshot_a_run_starts_again(tmp_path: Path) -> None:
    trainer(tmp_path).run(1)
    path = tmp_path / "step-000001" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    again = trainer(tmp_path)
    before = [p.clone() for p in again.network.parameters()]
    assert again.resume() == 0
    assert all(torch.equal(p, q) for p, q in zip(again.network.parameters(), before, strict=True))
    assert again.run(1) is None and resumed(tmp_path).step == 1


def test_a_moment_that_is_missing_where_no_hash_tells_is_damage(tmp_path: Path) -> None:
    trainer(tmp_path).run(1)
    unsealed(tmp_path / "step-000001")
    path = tmp_path / "step-000001" / "optimizer.safetensors"
    moments = load_file(path)
    del moments[min(moments)]
    save_file(moments, path)
    assert resumed(tmp_path).step == 0


def test_a_damaged_note_of_a_divergence_is_made_again(tmp_path: Path) -> None:
    expected = trainer(tmp_path, loss=Loss(nan_at=5)).run(9)
    note = tmp_path / "diverged.json"
    note.write_bytes(note.read_bytes().replace(b'"step": 5', b'"step": 4'))
    again = resumed(tmp_path, loss=Loss(nan_at=1))
    assert again.divergence is None and again.step == 4
    assert again.run(9) == expected


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


def test_a_run_too_short_for_its_average_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="ddpm_bench")
    settings = SETTINGS.model_copy(update={"ema_decay": 0.9999, "ema_ramp": False})
    trainer(tmp_path / "a", settings=settings).run(2)
    assert "99% random initial" in caplog.text
    caplog.clear()
    trainer(tmp_path / "b").run(2)
    assert "random initial" not in caplog.text


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
