"""The combined model: which of its two networks predicts at which step, and what is refused to be mixed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_checkpoint, tiny_data
from tiny_training import assert_same, trainer
from torch import Tensor, nn

from ddpm_bench.config.networks import MixedSettings, UNetSettings
from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.samplers import Chain, sample
from ddpm_bench.errors import UserError
from ddpm_bench.likelihood import bits_per_dim
from ddpm_bench.models.build import build_diffusion, build_network
from ddpm_bench.models.mix import mix
from ddpm_bench.models.model import load_model, save_model
from ddpm_bench.networks.mixed import Mixed
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.trainer import Trainer

T = 6
SETTINGS = MixedSettings(
    network=UNetSettings(base=4, multipliers=(1,), blocks=1, attention=(), groups=2), below=1, above=5
)
"""The steps 0 and 5 of 0..5 are the ends."""


class Counted(nn.Module):
    """Predicts a number, and tells how many images it has seen."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.seen = value, 0

    def forward(self, x_t: Tensor, step: Tensor) -> Tensor:
        self.seen += len(x_t)
        return torch.full_like(x_t, self.value)


def numbers() -> Mixed:
    network = Mixed(1, 1, 16, SETTINGS)
    network.ends, network.middle = Counted(1.0), Counted(2.0)
    return network.eval()


def denoiser(network: nn.Module, **changed: object) -> Denoiser:
    process = ProcessSettings(
        **{"parameterization": "eps", "variance": "fixed", "T": T, "beta_1": 0.05, "beta_T": 0.7} | changed
    )
    return Denoiser(build_diffusion(process), network, (1, 16, 16))


def test_the_ends_of_a_chain_are_the_ones_and_its_middle_the_others_within_a_batch() -> None:
    told = numbers()(torch.zeros(T, 1, 16, 16), torch.arange(T))
    assert told[:, 0, 0, 0].tolist() == [1, 2, 2, 2, 2, 1]


@pytest.mark.parametrize(("steps", "ends", "middle"), [([0, 5], 2, 0), ([1, 4], 0, 2), ([4, 5], 2, 2)])
def test_a_batch_that_needs_one_network_calls_one(steps: list[int], ends: int, middle: int) -> None:
    network = numbers()
    network(torch.zeros(2, 1, 16, 16), torch.tensor(steps))
    assert (network.ends.seen, network.middle.seen) == (ends, middle)


def test_a_sampler_calls_the_one_network_of_its_step_without_asking_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole network, which would have to look at its steps, is never called; a strided chain keeps to the steps it visits."""
    network = numbers()
    monkeypatch.setattr(Mixed, "forward", lambda self, x_t, step: pytest.fail("both networks would be called"))
    list(sample(Chain(denoiser(network)), count=3, seed=0))
    assert (network.ends.seen, network.middle.seen) == (3 * 2, 3 * 4)
    list(sample(Chain(denoiser(network).respaced([1, 2, 6])), count=3, seed=0))
    assert (network.ends.seen, network.middle.seen) == (3 * 4, 3 * 5)


def test_a_mix_is_trained_as_any_network_and_goes_on_bitwise_where_it_stopped(tmp_path: Path) -> None:
    """Of batches of 4 steps of 10 many hold none of the two that are the ends': still every parameter has its gradient."""

    def run(folder: str) -> Trainer:
        torch.manual_seed(0)
        settings = SETTINGS.model_copy(update={"above": 9.0})
        started = trainer(tmp_path / folder, network=Mixed(1, 1, 8, settings))
        started.resume()
        return started

    straight = run("a")
    straight.run(9)
    run("b").run(5)
    again = run("b")
    again.run(9)
    assert_same(again, straight)
    fresh = run("c").network.state_dict()
    assert all(not torch.equal(held, fresh[name]) for name, held in straight.network.state_dict().items())


def mixture(folder: Path, below: int = 2, **changed: object) -> Path:
    ends, middle = (load_model(tiny_checkpoint(folder / name, seed=seed, **changed)) for seed, name in enumerate("ab"))
    save_model(folder / "mix", *mix(ends, middle, below))
    return folder / "mix"


@pytest.mark.parametrize("told", [False, True])
def test_below_counts_steps_of_the_chain_however_the_network_is_told_of_them(tmp_path: Path, told: bool) -> None:
    ends, middle = (load_model(tiny_checkpoint(tmp_path / name, seed=seed, T=7)) for seed, name in enumerate("ab"))
    if told:
        process = ends.process.model_copy(update={"rescale_timesteps": True})
        ends, middle = (replace(each, process=process, diffusion=build_diffusion(process)) for each in (ends, middle))
    card, _ = mix(ends, middle, 3)
    network = build_network(card.network, card.shape, build_diffusion(card.process))
    of = [network.at(step) is network.ends for step in build_diffusion(card.process).schedule.network_steps.tolist()]
    assert of == [True, True, True, False, True, True, True]
    inner = [network.at(step) is network.middle for step in build_diffusion(card.process).schedule.network_steps]
    assert inner == [not end for end in of]


def test_a_mixed_model_predicts_as_each_of_the_two_where_it_is_theirs(tmp_path: Path) -> None:
    model = load_model(mixture(tmp_path))
    ends, middle = (load_model(tmp_path / name) for name in "ab")
    x, steps = torch.randn(T, 1, 16, 16), torch.arange(T)
    with torch.no_grad():
        both, first, second = (each.network(x, steps) for each in (model, ends, middle))
    outer = torch.tensor([True, True, False, False, True, True])
    assert torch.equal(both[outer], first[outer]) and torch.equal(both[~outer], second[~outer])
    assert not torch.equal(first, second) and model.parameters == 2 * ends.parameters


def test_a_model_mixed_with_itself_has_its_samples_and_its_bound_bit_for_bit(tmp_path: Path) -> None:
    one = load_model(tiny_checkpoint(tmp_path / "a", variance="learned-range"))
    save_model(tmp_path / "mix", *mix(one, one, 2))
    mixed = load_model(tmp_path / "mix")
    images = torch.from_numpy(np.load(tiny_data(tmp_path / "d.npz").partition(":")[2])["test"])
    chains = [each.chain(one.sampling) for each in (one, mixed)]
    samples = [torch.cat([part for _, part in sample(chain, count=5, seed=3)]) for chain in chains]
    bounds = [bits_per_dim(chain, images[:5], seed=3) for chain in chains]
    assert torch.equal(*samples)
    assert torch.equal(bounds[0].total, bounds[1].total) and torch.equal(bounds[0].terms, bounds[1].terms)
    x, steps = torch.randn(T, 1, 16, 16), torch.arange(T)
    with torch.no_grad():
        assert torch.equal(one.network(x, steps), mixed.network(x, steps))  # a batch of which each gets a part


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"T": 8}, "process.T: 6 and 8"),
        ({"variance": "fixed-beta-tilde"}, "process.variance: fixed and fixed-beta-tilde"),
        ({"weights": "unknown"}, "model.weights: EMA and not known whether EMA"),
    ],
)
def test_what_differs_beside_the_weights_is_refused_by_name(tmp_path: Path, change: dict, said: str) -> None:
    ends, other = load_model(tiny_checkpoint(tmp_path / "a")), load_model(tiny_checkpoint(tmp_path / "b", **change))
    with pytest.raises(UserError, match=f"'a' and 'b' cannot be mixed, because they differ in\n  {said}\n"):
        mix(ends, other, 2)


@pytest.mark.parametrize("below", [0, 3, 100])
def test_each_of_the_two_has_a_step(tmp_path: Path, below: int) -> None:
    one = load_model(tiny_checkpoint(tmp_path / "a"))
    with pytest.raises(UserError, match=f"--below {below} of a chain of 6 steps leaves no step .* choose 1 to 2"):
        mix(one, one, below)


def test_steps_of_training_may_differ_and_are_told(tmp_path: Path) -> None:
    one = load_model(tiny_checkpoint(tmp_path / "a"))
    card, _ = mix(replace(one, step=5), replace(one, step=9), 1)
    assert card.step is None and card.remarks == ("training steps: 5 of the ends, 9 of the middle",)
    assert mix(replace(one, step=5), replace(one, step=5), 1)[0].step == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": SETTINGS}, "mixed themselves"),
        ({"network": {"kind": "mixed"}}, "mixed themselves"),
        ({"below": -1}, "greater"),
    ],
)
def test_settings_that_are_no_mix_are_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MixedSettings.model_validate(SETTINGS.model_dump() | change)
    with pytest.raises(UserError, match=r"network\.above = 0 is less than network\.below = 1"):
        SETTINGS.model_copy(update={"above": 0.0}).check(16)


def test_precision_is_that_of_both_networks() -> None:
    network = Runtime(precision="bfloat16").place(Mixed(1, 1, 16, SETTINGS))
    assert network.ends.in_bfloat16 is network.middle.in_bfloat16 is network.in_bfloat16 is True


def test_the_command_makes_a_model_that_is_sampled_scored_and_bounded(call, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        tiny_checkpoint(tmp_path / name, seed=seed)
    out, data = tmp_path / "mix", tiny_data(tmp_path / "data.npz")
    arguments = ("mix", "--ends", tmp_path / "a", "--middle", tmp_path / "b", "--below", "2", "--out", out)
    made = call(*arguments, "--json")
    assert made.code == 0, made.err
    card = json.loads(made.out)
    assert card["name"] == "b with ends of a" and card["source"]["middle"] == "b"
    assert call(*arguments).code == 2  # taken
    done = call("sample", "--ckpt", out, "--samples", "4", "--out", tmp_path / "s.npz")
    assert done.code == 0, done.err
    done = call("nll", "--ckpt", out, "--data", data, "--images", "4", "--cache", tmp_path / "cache", "--json")
    assert done.code == 0, done.err
    done = call(
        "evaluate", "--ckpt", out, "--data", data, "--count", 12, "--bound-images", 2, "--evals", 5, "--results", tmp_path / "rows",
        "--cache", tmp_path / "cache", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["setup"]["model"]["identity"]["network"]["kind"] == "mixed"
