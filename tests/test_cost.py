"""What a grid will cost: each network timed once, at its fastest, and the workers counted."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data import load_data
from ddpm_bench.experiment import cost
from ddpm_bench.experiment.ablate import plan
from ddpm_bench.experiment.cost import Cost, GridCost, Pace, estimate, longest_first
from ddpm_bench.experiment.launchers import Inline, Processes
from ddpm_bench.runtime.runtime import Runtime

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def jobs():
    return plan(load_grid("table2"), "smoke", None, [0, 1], [])


@pytest.fixture(scope="module")
def data(jobs):
    return load_data(jobs[0].settings.data)


@pytest.fixture
def timed(monkeypatch):
    """Networks are not timed but written down, with the threads that they would have had."""
    seen = []

    def time_network(job, data, runtime, threads):
        seen.append((job.settings.diffusion.variance, torch.get_num_threads()))
        return Pace(1000, *(len(seen) * each for each in (1.0, 0.5, 0.25)))

    monkeypatch.setattr(cost, "time_network", time_network)
    return seen


def test_each_network_is_timed_once_with_the_threads_of_a_worker(jobs, data, timed):
    before = torch.get_num_threads()
    estimate(jobs, data, Runtime(), workers=2, threads=2)
    assert Counter(timed) == {("learned", 2): 1, ("fixed", 2): 1}
    assert torch.get_num_threads() == before


def test_cells_of_one_network_cost_the_same_and_others_by_their_counts(jobs, data, timed):
    cells = {each.job: each for each in estimate(jobs, data, Runtime()).cells}
    assert len(cells) == 12 and len({each.hours for each in cells.values()}) == 2
    training, chain, bound = 100 * 16, (64 + 8) * 10, 2 * 16 * 10
    assert cells["mu-L-learned-seed1"].hours == pytest.approx((training + chain / 2 + bound / 4) / 3600)
    assert (
        cells["eps-mse-fixed-seed0"].hours == cells["mu-L-fixed-seed1"].hours == 2 * cells["mu-L-learned-seed0"].hours
    )


def test_another_batch_or_size_of_network_is_timed_apart_and_other_counts_are_not(data):
    def networks(*assignments):
        (job,) = plan(load_grid("table2"), "smoke", ["eps-mse-fixed"], [0], assignments)
        return cost._network(job.settings, data)

    same = networks()
    assert networks("training.steps=50") == networks("diffusion.T=20") == same
    assert len({same, networks("training.batch=8"), networks("network.base=16"), networks("sampling.samples=8")}) == 4


@pytest.mark.parametrize(
    ("hours", "workers", "threads", "wall"),
    [
        ([1] * 6, 1, 4, 6),
        ([1] * 6, 2, 2, 3),
        ([1] * 5, 2, 2, 3),
        ([1] * 6, 4, 1, 2),
        ([3, 1, 1, 1], 2, 2, 3),
        ([1, 1, 3], 2, 2, 3),
        ([1] * 6, 6, 1, 2),  # six on four cores take turns
        ([2], 4, 1, 2),
    ],
)
def test_the_wall_time_of_a_grid_is_that_of_its_workers_side_by_side(monkeypatch, hours, workers, threads, wall):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    grid = GridCost(tuple(Cost(str(i), 1, each, 1) for i, each in enumerate(hours)), workers, threads)
    assert grid.hours == wall and grid.hours_in_a_row == sum(hours) and grid.disk_bytes == len(hours)
    assert grid.as_json()["hours"] == wall


def test_the_longest_jobs_begin_first_and_each_training_before_what_shares_it(jobs):
    assert longest_first(jobs) == list(jobs)  # of equal ones the order stays

    def in_steps(job, steps, shares=None):
        sampling = job.settings.sampling.model_copy(update={"steps": steps})
        return replace(job, settings=job.settings.model_copy(update={"sampling": sampling}), shares=shares)

    whole, short = jobs[0], in_steps(jobs[1], 2, shares=jobs[1])
    few, many = in_steps(jobs[2], 3, shares=jobs[1]), in_steps(jobs[3], 9, shares=jobs[1])
    assert longest_first([short, few, many, whole]) == [whole, short, many, few]


def test_workers_of_a_gpu_share_it(jobs, data, timed):
    grid = estimate(jobs, data, Runtime(torch.device("cuda")), workers=3, threads=1)
    assert grid.workers == 1 and grid.hours == pytest.approx(grid.hours_in_a_row)


def test_workers_and_threads_are_those_that_the_launcher_will_have(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert [Processes(workers).threads for workers in (1, 2, 4, 9)] == [6, 3, 1, 1]
    assert Processes(2, cpus_per_cell=4).threads == 4
    assert (Inline().workers, Inline().threads) == (1, torch.get_num_threads())


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ([9, 5, 3, 2, 2, 2, 2, 2, 1], 2),  # warmed up, and then four that gain nothing
        ([2, 8, 8, 8, 8, 1], 2),
        ([2, 3, 3, 1, 3, 3, 3, 3], 1),  # something else ran meanwhile
    ],
)
def test_a_call_is_timed_until_it_gets_no_faster_and_its_fastest_counts(monkeypatch, seconds, best):
    times = iter(seconds)
    monkeypatch.setattr(cost, "seconds_of", lambda *_, **__: next(times))
    assert cost._fastest(lambda: None, CPU, lambda: 0.0) == best


def test_a_call_that_gets_faster_for_ever_is_left_after_a_while(monkeypatch):
    now, took = [0.0], [1.0]

    def seconds_of(*_, **__):
        now[0] += 1
        took[0] *= 0.9
        return took[0]

    monkeypatch.setattr(cost, "seconds_of", seconds_of)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    assert cost._fastest(lambda: None, CPU, lambda: 0.0) == pytest.approx(0.9 ** math.ceil(cost.LONGEST_S))


def test_the_batch_that_is_timed_is_the_cells_own_or_what_a_call_of_a_second_holds(monkeypatch):
    monkeypatch.setattr(cost, "seconds_of", lambda call, *_: call)  # a call stands for its seconds
    assert cost._affordable(lambda images: images / 100, 64) == 64
    assert cost._affordable(lambda images: images / 50, 64) == 50
    assert cost._affordable(lambda images: images * 10.0, 64) == cost.FEWEST
    assert cost._affordable(lambda images: pytest.fail("timed"), 2) == 2


def test_a_real_network_is_timed_in_all_that_it_does(jobs, data):
    pace = cost.time_network(jobs[0], data, Runtime(), threads=1)
    assert pace.parameters == 45_042
    assert pace.training > pace.sampling > 0 and pace.bound > 0


def test_a_network_that_is_told_classes_is_timed_with_the_labels_of_the_images(data, monkeypatch):
    [job, *_] = plan(load_grid("cfg-imagenet64"), "smoke", None, [0], [])
    monkeypatch.setattr(cost, "STEADY", 1)
    pace = cost.time_network(job, data, Runtime(), threads=1)
    assert job.settings.network.classes == 10 and pace.training > 0 and pace.sampling > 0
