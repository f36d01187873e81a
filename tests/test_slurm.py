"""`--launcher slurm`: what is asked of Slurm, and jobs as submitit's processes of this machine, killed, preempted and taken up."""

import os
import pickle
import signal
import sys

import programs
import pytest
from test_ray import LONG, Killer
from test_side_by_side import MEASURED
from tiny_models import tiny_bench, tiny_jobs

from ddpm_bench.errors import UserError
from ddpm_bench.experiment.launchers import Inline, Slurm, slurm
from ddpm_bench.runtime.observer import Observer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="jobs are told by signals")


@pytest.fixture(autouse=True)
def extra():
    programs.submitit()


@pytest.fixture
def slurm_here(monkeypatch, tmp_path):
    """A machine from which jobs are submitted to Slurm, as far as submitit looks; returns what sbatch is given."""
    scripts = tmp_path / "bin"
    scripts.mkdir()
    given = tmp_path / "given.sh"
    for name, does in {
        "srun": "exit 0",
        "sbatch": f'cat "$1" > {given}; echo Submitted batch job 77',
        "sacct": f"cat {tmp_path}/states",
        "scancel": f'echo "$@" >> {tmp_path}/cancelled',
    }.items():
        (scripts / name).write_text(f"#!/bin/sh\n{does}\n")
        (scripts / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(scripts), prepend=os.pathsep)
    return given


def queued(asked, folder, jobs):
    """The queue as a command leaves it that ends as soon as its jobs are in."""
    tasks = slurm._SlurmTasks(asked, jobs, tiny_bench(folder))
    tasks.begin(jobs)
    return tasks


def test_a_grid_is_one_array_with_what_was_asked(slurm_here, tmp_path):
    asked = Slurm(1, "long", 1.5, 1.0, 8, 32.0)
    tasks = queued(asked, tmp_path, tiny_jobs(tmp_path))
    lines = slurm_here.read_text()
    for word in ("--array=0-1%1", "--partition=long", "--time=90", "--gpus-per-node=1", "--cpus-per-task=8", "--mem=32GB",
                 "--requeue", "--signal=USR2@120", "--open-mode=append"):  # fmt: skip
        assert f"#SBATCH {word}\n" in lines
    assert [entry.job_id for entry in tasks.queued.values()] == ["77_0", "77_1"]


def test_without_slurm_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="works where jobs are submitted to Slurm from, and not here"):
        list(Slurm(1).run(tiny_jobs(tmp_path), tiny_bench(tmp_path), lambda job: Observer()))


def test_what_sbatch_refuses_is_said(slurm_here, tmp_path):
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'invalid partition specified: lnog' >&2; exit 1\n")
    with pytest.raises(UserError, match="invalid partition specified: lnog"):
        list(Slurm(1, "lnog").run(tiny_jobs(tmp_path), tiny_bench(tmp_path), lambda job: Observer()))


def states(folder, *of):
    lines = [f"77_{number}|{state}|node" for number, state in enumerate(of)]
    (folder / "states").write_text("\n".join(["JobID|State|NodeList", *lines, ""]))


@pytest.fixture
def asks_anew():
    """Slurm's answers are kept by submitit for the whole process."""
    import submitit

    submitit.SlurmJob.watcher._registered.clear()
    submitit.SlurmJob.watcher.clear()
    yield
    submitit.SlurmJob.watcher._registered.clear()
    submitit.SlurmJob.watcher.clear()


def test_the_same_command_takes_its_jobs_up_again(slurm_here, asks_anew, tmp_path, messages, capsys):
    jobs = tiny_jobs(tmp_path)
    states(tmp_path, "RUNNING", "NODE_FAIL")
    first = queued(Slurm(2), tmp_path, jobs)
    first.files[jobs[0].name].append("phase", ("training",))
    slurm_here.unlink()
    again = queued(Slurm(2), tmp_path, jobs)
    said = capsys.readouterr().err
    assert f"{jobs[0].name} is in the queue already, as 77_0" in said and f"{jobs[1].name} is in" not in said
    assert slurm_here.exists() and again.news() == [(jobs[0].name, "phase", ("training",))]
    assert again.stop() == [job.name for job in jobs] and "scancel 77" in capsys.readouterr().err


def test_a_job_in_the_queue_with_other_settings_is_refused(slurm_here, asks_anew, tmp_path):
    states(tmp_path, "RUNNING", "RUNNING")
    queued(Slurm(2), tmp_path, tiny_jobs(tmp_path))
    tasks = slurm._SlurmTasks(Slurm(2), jobs := tiny_jobs(tmp_path, "training.steps=11"), tiny_bench(tmp_path))
    with pytest.raises(UserError, match=r"is in the queue as 77_0, with other settings.*scancel 77_0"):
        tasks.begin(jobs)


def test_a_job_that_was_cancelled_is_not_begun_again_and_one_whose_node_failed_is(slurm_here, asks_anew, tmp_path):
    states(tmp_path, "CANCELLED by 0", "NODE_FAIL")
    tasks = queued(Slurm(2), tmp_path, jobs := tiny_jobs(tmp_path))
    gone = tasks.gone()
    assert [gone[job.name].again for job in jobs] == [False, True] and not tasks.queued
    tasks.begin(jobs[1:])  # the one that Slurm may have requeued by itself does not come back beside it
    assert (tmp_path / "cancelled").read_text() == "77_1\n" and [*tasks.queued] == [jobs[1].name]


def test_why_jobs_wait_is_said_once_each(slurm_here, asks_anew, tmp_path, messages, capsys, monkeypatch):
    monkeypatch.setattr(slurm, "WHY_S", -1.0)
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(
        f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked; printf 'None\\nPartitionConfig\\nJobArrayTaskLimit\\n'\n"
    )
    squeue.chmod(0o755)
    states(tmp_path, "PENDING", "PENDING")
    tasks = queued(Slurm(2), tmp_path, tiny_jobs(tmp_path))
    assert not tasks.gone() and not tasks.gone()
    assert "--jobs=77" in (tmp_path / "asked").read_text()
    assert capsys.readouterr().err.count("Slurm's reason") == 1


def test_nothing_but_what_was_written_for_a_job_is_unpickled(tmp_path):
    shared, news = tmp_path / "shared.pkl", tmp_path / "news.jsonl"
    shared.write_bytes(pickle.dumps(0))
    slurm.SlurmTask("a-seed0", shared, "0" * 64, 1, news, 0.1, slurm.__version__)()
    assert "Nothing of it was loaded" in news.read_text()


# ---- real jobs ----------------------------------------------------------------------------------------------------------

HERE = Slurm(2, cluster="local")


def test_a_job_that_is_preempted_or_killed_costs_time_alone(tmp_path, messages, capsys):
    jobs, bench = tiny_jobs(tmp_path, *LONG), tiny_bench(tmp_path)
    work = {job.name: bench.results / "work" / job.name for job in jobs}

    class Preempts(Killer):
        number = signal.SIGUSR2

    watchers = {jobs[0].name: Killer(work[jobs[0].name]), jobs[1].name: Preempts(work[jobs[1].name])}
    found = {job.name: result for job, result in HERE.run(jobs, bench, lambda job: watchers[job.name])}
    said = capsys.readouterr().err
    assert [watcher.killed for watcher in watchers.values()] == [1, 1] and said.count("going on at step") == 2
    assert said.count("is begun again") == 1
    for job, straight in Inline().run(jobs, tiny_bench(tmp_path, "straight"), lambda job: Observer()):
        for part in MEASURED:
            assert getattr(found[job.name], part) == getattr(straight, part), (job.name, part)
    assert not list((bench.results / "work" / "slurm").glob("shared-*"))
