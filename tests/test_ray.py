"""`--launcher ray` on a small Ray cluster of this machine, which it takes for two: the same records, whoever is killed."""

import os
import signal
import sys
from contextlib import suppress

import programs
import pytest
from test_side_by_side import MEASURED, process_of
from tiny_models import PLAIN, tiny_bench, tiny_data, tiny_jobs, tiny_preset

from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.experiment.launchers import Inline, Ray
from ddpm_bench.experiment.launchers.ray import _RayTasks
from ddpm_bench.records.record import Record, read_records
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.observer import Observer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers are killed by signals")
LONG = ("training.steps=200", "training.checkpoint_every=20")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """For all tests of this file; the launcher uses the cluster that its process is in."""
    programs.ray()
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else other tests come first
        machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        machines.add_node(num_cpus=1)
        ray.init(machines.address, log_to_driver=False, logging_level="error")
        yield machines
        ray.shutdown()
        machines.shutdown()


class Killer(Observer):
    """Sends the process of its job a signal once, when it has a snapshot."""

    every = 0.0
    number = signal.SIGKILL

    def __init__(self, work) -> None:
        self.work, self.killed, self.phases = work, 0, []

    def phase(self, name) -> None:
        self.phases.append(name)

    def show(self, reading) -> None:
        if not self.killed and list(self.work.glob("step-*/state.json")):
            with suppress(OSError, ProcessLookupError):
                os.kill(process_of(self.work), self.number)
                self.killed += 1


def test_a_worker_that_is_killed_costs_time_alone(tmp_path, messages, capsys):
    job, bench = tiny_jobs(tmp_path, *LONG)[0], tiny_bench(tmp_path)
    killer = Killer(bench.results / "work" / job.name)
    ((_, found),) = Ray(1).run([job], bench, lambda job: killer)
    said = capsys.readouterr().err
    assert killer.killed == 1 and killer.phases.count("training") == 2 and isinstance(found, Record)
    assert f"{job.name}: its task died" in said and "going on at step" in said
    ((_, straight),) = Inline().run([job], tiny_bench(tmp_path, "straight"), lambda job: Observer())
    for part in MEASURED:
        assert getattr(found, part) == getattr(straight, part), part


def test_a_stop_lets_every_task_save(tmp_path):
    jobs, bench = (
        tiny_jobs(tmp_path, "training.steps=1000000", "training.checkpoint_every=1000000"),
        tiny_bench(tmp_path),
    )

    class Stops(Observer):
        every = 0.0

        def show(self, reading) -> None:
            stop.requested = stop.requested or len(list((bench.results / "work").glob("*/log.jsonl"))) == 2

    with Stop(()) as stop, pytest.raises(Interrupted):
        list(Ray(2).run(jobs, bench, lambda job: Stops()))
    assert len(list((bench.results / "work").glob("*/step-*/state.json"))) == 2
    assert not list((bench.results / "work").glob("*/.owner.held"))


def test_the_command_gives_the_records_and_the_progress_of_any_launcher(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets = [word for each in PLAIN for word in ("--set", each)]
    done = call(
        "ablate", "--preset", tiny_preset(tmp_path), "--data", tiny_data(tmp_path / "data.npz"), "--cells",
        "mu-L-fixed,eps-L-fixed", "--cache", "cache", "--results", "results", "--no-report", "--launcher", "ray", *sets,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [record.cell for record in read_records(tmp_path / "results")] == ["eps-L-fixed", "mu-L-fixed"]
    assert "mu-L-fixed-seed0: After 10 steps the averaged weights" in done.err and "(2 of 2)" in done.err


def test_what_a_user_must_mend_ends_the_grid_from_a_task_too(tmp_path):
    bench, jobs = tiny_bench(tmp_path), tiny_jobs(tmp_path)
    (bench.results / "work").mkdir(parents=True)
    (bench.results / "work" / jobs[0].name).write_text("no folder")
    with pytest.raises(UserError, match="Choose another folder"):
        list(Ray(2).run(jobs, bench, lambda job: Observer()))


def test_cells_for_which_no_machine_has_room_are_refused_or_said(messages, capsys):
    with pytest.raises(
        UserError,
        match=r"No machine of the Ray cluster .* has CPU 99, GPU 0\.5 for a cell\. There: CPU 1, GPU 0; CPU 1, GPU 0",
    ):
        Ray(1, cpus_per_cell=99, gpus_per_cell=0.5)._check_room("local")
    Ray(1, cpus_per_cell=99)._check_room("auto")
    assert "Cells wait until one joins" in capsys.readouterr().err


def test_what_tasks_tell_is_kept_beside_the_command_and_on_no_other_machine(cluster, tmp_path):
    import ray

    def machine(_) -> str:
        return ray.get_runtime_context().get_node_id()

    several = [_RayTasks(Ray(1), tiny_bench(tmp_path), 1.0) for _ in range(3)]
    where = ray.get([tasks.mailbox.__ray_call__.remote(machine) for tasks in several])
    assert where == [machine(None)] * 3
    for tasks in several:
        tasks.kill()


def test_a_machine_that_is_lost_costs_time_alone(cluster, tmp_path, messages, capsys):
    """The last test: there is one machine less after it."""
    jobs, bench = tiny_jobs(tmp_path, *LONG), tiny_bench(tmp_path)

    class Thief(Observer):
        every = 0.0

        def show(self, reading) -> None:
            if cluster.worker_nodes and len(list((bench.results / "work").glob("*/log.jsonl"))) == 2:
                cluster.remove_node(*cluster.worker_nodes, allow_graceful=False)

    found = dict(Ray(2).run(jobs, bench, lambda job: Thief()))
    said = capsys.readouterr().err
    assert said.count("its task died") == 1
    for job in jobs:
        ((_, straight),) = Inline().run([job], tiny_bench(tmp_path, "straight"), lambda job: Observer())
        for part in MEASURED:
            assert getattr(found[job], part) == getattr(straight, part), part
