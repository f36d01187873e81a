"""A launcher is chosen by its name, its options become its own, and one that does not go with it is refused."""

import math

import pytest
import torch

from ddpm_bench.cli.options import device_numbers
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.launchers import Asked, Inline, Processes, Ray, Slurm, choose_launcher, device_elsewhere

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_there_are_never_more_workers_than_jobs_or_by_default_more_than_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)

    def workers(wanted, jobs, device):
        return choose_launcher(Asked(workers=wanted), jobs, device).workers

    assert [workers(None, jobs, CPU) for jobs in (0, 1, 3, 6)] == [1, 1, 3, 4]
    assert [workers(None, jobs, CUDA) for jobs in (1, 6)] == [1, 1]
    assert [workers(wanted, 6, CUDA) for wanted in (1, 2, 9)] == [1, 2, 6]
    assert choose_launcher(Asked(cpus_per_cell=2), 6, CPU) == Processes(2, cpus_per_cell=2)
    assert choose_launcher(Asked("ray"), 60, CPU).workers == 60  # a cluster's size is its own to know


def test_a_launcher_is_chosen_by_its_name_and_an_unknown_one_is_refused():
    assert choose_launcher(Asked("inline"), 6, CPU) == Inline()
    assert choose_launcher(Asked(workers=1), 6, CPU) == Inline()
    assert choose_launcher(Asked("local", workers=1), 6, CPU) == Processes(1)
    assert choose_launcher(Asked(workers=1, cpus_per_cell=3), 6, CPU) == Processes(1, cpus_per_cell=3)
    with pytest.raises(UserError, match="did you mean 'local'"):
        choose_launcher(Asked("locals"), 6, CPU)
    with pytest.raises(UserError, match="--launcher processes is called --launcher local now"):
        choose_launcher(Asked("processes"), 6, CPU)


def test_options_become_the_launchers_own():
    asked = Asked("slurm", workers=3, partition="long", hours=4.0, gpus_per_cell=1.0, cpus_per_cell=8, memory=32.0)
    assert choose_launcher(asked, 6, CUDA) == Slurm(3, "long", 4.0, 1.0, 8, 32.0)
    assert choose_launcher(Asked("ray", address="auto", gpus_per_cell=0.5), 6, CUDA) == Ray(6, "auto", 0.5)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked("inline", workers=3), "--workers 3 does not go with --launcher inline"),
        (Asked("inline", cpus_per_cell=2), "--cpus-per-cell goes with --launcher local or --launcher ray or --launcher slurm"),
        (Asked(address="auto"), "--address goes with --launcher ray, not with --launcher local"),
        (Asked("ray", devices=(0,)), "--devices goes with --launcher local, not with --launcher ray"),
        (Asked("ray", hours=3.0), "--hours goes with --launcher slurm, not with --launcher ray"),
        (Asked("local", gpus_per_cell=1.0), "--gpus-per-cell goes with --launcher ray or --launcher slurm"),
        (Asked("ray", gpus_per_cell=2.0), "--gpus-per-cell 2: a cell computes on one GPU"),
        (Asked("ray", gpus_per_cell=math.nan), "--gpus-per-cell nan"),
        (Asked("slurm", gpus_per_cell=0.5), "--gpus-per-cell 0.5: .* Slurm gives whole ones"),
        (Asked("slurm", hours=0.0), "--hours 0 must be a number above 0"),
        (Asked("slurm", memory=math.inf), "--memory inf must be a number above 0"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value.launcher),
)  # fmt: skip
def test_an_option_that_does_not_go_with_the_launcher_is_refused_by_name(asked, said):
    with pytest.raises(UserError, match=said):
        choose_launcher(asked, 6, CPU)


def test_a_cluster_has_a_device_of_its_own():
    assert device_elsewhere(Asked("local"), "cuda") is None and device_elsewhere(Asked(), "auto") is None
    assert device_elsewhere(Asked("slurm"), "auto") == CPU
    assert device_elsewhere(Asked("ray", gpus_per_cell=0.25), "cuda") == CUDA
    with pytest.raises(UserError, match="--device cuda does not go with --launcher ray"):
        device_elsewhere(Asked("ray"), "cuda")


# ---- GPUs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "device", "said"),
    [
        (Asked(devices=(0,)), CPU, "--devices 0 pins cells to GPUs, and they are to run on 'cpu'"),
        (Asked(devices=(0, 2)), CUDA, "--devices 0,2: there is no GPU 2; torch sees 2, from 0 to 1"),
        (Asked(workers=1, devices=(0, 1)), CUDA, "--devices 0,1 are 2 GPUs for --workers 1"),
    ],
)
def test_devices_that_cannot_be_are_refused(monkeypatch, asked, device, said):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UserError, match=said):
        choose_launcher(asked, 6, device)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "numbers"), ("0,x", "numbers"), ("-1", "numbers"), ("9" * 30, "numbers"), ("1,1", "twice")],
)
def test_what_is_no_list_of_devices_is_refused(text, said):
    with pytest.raises(UserError, match=f"--devices .*{said}"):
        device_numbers(text)


def test_there_are_as_many_workers_as_devices_unless_more_are_to_share_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert choose_launcher(Asked(devices=device_numbers("1,3")), 6, CUDA) == Processes(2, (1, 3))
    assert choose_launcher(Asked(devices=(1, 3), workers=4), 6, CUDA) == Processes(4, (1, 3))
