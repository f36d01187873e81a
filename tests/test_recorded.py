"""Calls that a GPU records and replays, with graphs that are emulated on the CPU: numbers are bitwise those of plain calls."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from emulated_graphs import Graph, graphs
from test_labels import trainer as told_trainer
from tiny_models import tiny_preset
from tiny_training import NETWORK, LSimple, SquaresLoss, assert_same, trainer
from torch import Tensor

from ddpm_bench.config.networks import MixedSettings
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.guidance import Guided
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import Chain, sample
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.networks.condition import Condition
from ddpm_bench.networks.mixed import Mixed
from ddpm_bench.networks.unet import UNet
from ddpm_bench.runtime.observer import noting
from ddpm_bench.runtime.recorded import Recorded, launched_one_by_one
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.speed import shares
from ddpm_bench.speed.case import Case

__all__ = ["graphs"]  # a fixture

DIFFUSION = Diffusion(linear(10, 1e-2, 0.9), Eps(), FixedBeta())


class Counted:
    """2 x + 1, and how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, more: Tensor | Condition | None = None) -> Tensor:
        self.calls += 1
        return 2 * x + 1


def test_on_a_cpu_every_call_is_made() -> None:
    work = Counted()
    call = Recorded(work)
    assert [call(torch.tensor([float(x)])).item() for x in range(5)] == [1, 3, 5, 7, 9] and work.calls == 5


def test_a_gpu_makes_the_first_call_records_the_second_and_replays_it(graphs) -> None:
    work = Counted()
    call = Recorded(work)
    assert [call(torch.tensor([float(x)])).item() for x in range(5)] == [1, 3, 5, 7, 9]
    assert work.calls == 2 and graphs.replays == 4


def test_each_shape_and_each_condition_is_recorded_by_itself(graphs) -> None:
    work, x = Counted(), torch.ones(3)
    call, labels = Recorded(work), torch.zeros(3, dtype=torch.int64)
    given = [(x,), (x[:2],), (x.double(),), (x, None), (x, Condition(labels)), (x, Condition(labels, level=labels))]
    for _ in range(4):
        for arguments in given:
            assert torch.equal(call(*arguments), 2 * arguments[0] + 1)
    assert work.calls == 2 * len(given)
    with torch.no_grad():
        assert torch.equal(call(x), 2 * x + 1) and work.calls == 2 * len(given) + 1  # another mode, another call


def test_copies_stay_and_what_is_none_is_overwritten(graphs) -> None:
    for copies, kept in ((True, [1, 3, 5, 7]), (False, [1, 7, 7, 7])):
        call = Recorded(Counted(), copies)
        made = [call(torch.tensor([float(x)])) for x in range(4)]
        assert [each.item() for each in made] == kept


def test_what_cannot_be_recorded_is_called_and_that_is_said(graphs, monkeypatch) -> None:
    def refuse(graph: Graph) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    work = Counted()
    call = Recorded(work)
    with noting() as notes:
        assert [call(torch.tensor([float(x)])).item() for x in range(4)] == [1, 3, 5, 7] and work.calls == 4
    assert len(notes) == 1 and "not permitted" in notes[0]


def test_nothing_is_replayed_where_that_is_not_wanted(graphs) -> None:
    work = Counted()
    call = Recorded(work)
    with launched_one_by_one():
        [call(torch.ones(1)) for _ in range(4)]
    assert work.calls == 4 and graphs.replays == 0


def test_the_shares_of_time_are_of_calls_that_pass_every_mark(graphs, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shares, "scoring", lambda case: None)
    phases = shares.phases(Case.of(tiny_preset(tmp_path), None, torch.device("cpu")))
    assert graphs.replays == 0 and all(phase.parts["network"] > 0 for phase in phases if phase)


def test_a_copy_has_recorded_nothing(graphs) -> None:
    call = Recorded(Counted(), copies=True)
    [call(torch.ones(1)) for _ in range(3)]
    for again in (copy.deepcopy(call), pickle.loads(pickle.dumps(call))):
        assert again._replays == {} and again._copies and again._work.calls == 2


@pytest.mark.parametrize("loss", [LSimple, SquaresLoss])
def test_training_is_bitwise_the_same_replayed_with_dropout_and_weighted_losses(graphs, tmp_path: Path, loss) -> None:
    with launched_one_by_one():
        plain = trainer(tmp_path / "plain", loss=loss())
        plain.run(6)
    replayed = trainer(tmp_path / "replayed", loss=loss())
    replayed.run(6)
    assert graphs.replays == 5 and NETWORK.dropout > 0
    assert_same(plain, replayed)


def test_training_with_labels_is_bitwise_the_same_replayed(graphs, tmp_path: Path) -> None:
    with launched_one_by_one():
        plain = told_trainer(tmp_path / "plain")
        plain.run(4)
    replayed = told_trainer(tmp_path / "replayed")
    replayed.run(4)
    assert graphs.replays == 3
    assert_same(plain, replayed)


def test_gradients_that_were_taken_away_between_steps_are_there_again(graphs, tmp_path: Path) -> None:
    plain, replayed = trainer(tmp_path / "plain"), trainer(tmp_path / "replayed")
    for _ in range(5):
        with launched_one_by_one():
            plain.train_step()
        replayed.train_step()
        replayed.network.zero_grad()
    assert all(
        torch.equal(p, q) for p, q in zip(plain.network.parameters(), replayed.network.parameters(), strict=True)
    )


def drawn(network: torch.nn.Module, condition: Condition | None = None) -> Tensor:
    """5 samples in batches of 2, 2 and 1."""
    chain = Chain(Denoiser(DIFFUSION, network, (1, 8, 8), condition=condition))
    return torch.cat([images for _, images in sample(chain, count=5, seed=0, runtime=Runtime(batch=2))])


def unet(classes: int = 0) -> UNet:
    torch.manual_seed(0)
    told = {"classes": classes, "null_class": True} if classes else {}
    network = UNet(1, 1, 8, NETWORK.model_copy(update=told))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def test_samples_are_bitwise_the_same_replayed(graphs) -> None:
    network = unet()
    with launched_one_by_one():
        plain = drawn(network)
    assert torch.equal(plain, drawn(network))
    assert graphs.replays == 29  # of 30 steps; the first is made, and the last batch is filled up


def test_fewer_rows_are_filled_up_to_those_of_the_shortest_recording(graphs) -> None:
    work = Counted()
    call = Recorded(work, copies=True)
    x, labels = torch.arange(8.0), torch.arange(8)

    def right(rows: int) -> bool:
        made = call(x[:rows] + work.calls, Condition(labels[:rows]))
        return torch.equal(made, 2 * (x[:rows] + calls) + 1)

    for rows, calls in ((4, 0), (3, 1), (4, 2), (4, 3), (3, 3), (1, 3), (8, 3), (8, 4), (8, 5), (6, 5), (2, 5)):
        assert work.calls == calls and right(rows), (rows, work.calls)
    assert work.calls == 5  # 4 and 8 rows twice each, 3 once, before anything was recorded


def test_work_that_returns_no_rows_is_recorded_for_every_number_of_them(graphs) -> None:
    call = Recorded(torch.sum)
    for rows in (4, 4, 4, 3, 3, 3):
        assert call(torch.ones(rows)).item() == rows


def test_a_mix_records_each_of_its_networks_guided_or_not(graphs) -> None:
    mixed = Mixed(1, 1, 8, MixedSettings(network=NETWORK, below=2, above=6)).eval()
    with launched_one_by_one():
        plain = drawn(mixed)
    assert torch.equal(plain, drawn(mixed)) and graphs.replays > 0
    denoiser = Denoiser(DIFFUSION, Guided(mixed, 2.0, no_class=3), (1, 8, 8))
    assert len({denoiser.network.at(step) for step in range(10)}) == 2
