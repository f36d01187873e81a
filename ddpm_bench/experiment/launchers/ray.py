"""Each job a task of a Ray cluster.

Tasks and the command that began them meet in an actor beside the command: news goes one way, the wish to stop the other. Ray ends
the tasks of a command that is gone, however it went.
"""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ddpm_bench import __version__
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.job import Bench, Job
from ddpm_bench.experiment.launchers.cluster import Death, Tasks, anywhere, check_version, needs, task
from ddpm_bench.experiment.launchers.launcher import Ended, ObserverOf
from ddpm_bench.experiment.launchers.wire import Wire
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.observer import say

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

HERE = "local"
"""What Ray calls a cluster of its own on this machine, there for this command alone."""
STOP_S = 0.5
"""How often a task asks whether it is to stop."""


@dataclass(frozen=True)
class Ray:
    """`workers` tasks at a time, where the cluster has room for so many.

    address: of the cluster; by default that in RAY_ADDRESS, else one of its own on this machine. gpus_per_cell: a part of one where
    several cells are to share it.
    """

    elsewhere: ClassVar[bool] = True
    workers: int
    address: str | None = None
    gpus_per_cell: float = 0.0
    cpus_per_cell: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.gpus_per_cell <= 1:
            raise UserError(
                f"--gpus-per-cell {self.gpus_per_cell:g}: a cell computes on one GPU, or on a part of one: 0 to 1."
            )

    @property
    def threads(self) -> int:
        return self.cpus_per_cell

    def run(self, jobs: Sequence[Job], bench: Bench, observer_of: ObserverOf) -> Iterator[Ended]:
        observers = {job.name: observer_of(job) for job in jobs}
        every = min(each.every for each in observers.values())
        with _connected(self.address or os.environ.get("RAY_ADDRESS") or HERE) as where:
            self._check_room(where)
            tasks = _RayTasks(self, bench, every)
            try:
                yield from Tasks(tasks, jobs, bench, observers, self.workers).run()
            finally:
                tasks.kill()

    def _check_room(self, where: str) -> None:
        """A machine for a cell: refused where there can be none, said where one may join yet."""
        import ray

        asked = {"CPU": self.cpus_per_cell, "GPU": self.gpus_per_cell}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(all(node.get(kind, 0) >= count for kind, count in asked.items()) for node in nodes):
            return
        wanted = ", ".join(f"{kind} {count:g}" for kind, count in asked.items())
        there = "; ".join(", ".join(f"{kind} {node.get(kind, 0):g}" for kind in asked) for node in nodes)
        said = f"No machine of the Ray cluster ({where}) has {wanted} for a cell. There: {there}"
        if where == HERE:
            raise UserError(f"{said}. Ask for less with --cpus-per-cell and --gpus-per-cell.")
        say(f"{said}. Cells wait until one joins")


@contextlib.contextmanager
def _connected(address: str) -> Iterator[str]:
    """Within the block this process belongs to the cluster there, or to the one that it belonged to before; says which."""
    try:
        import ray
    except ImportError as error:
        raise needs("ray", error) from error
    if ray.is_initialized():
        yield "the one that this process is in"
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster of its own: else 15, behind all that runs here
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"--address {address}: no Ray cluster can be reached there: {error}") from error
    finally:
        for number, handler in handlers.items():  # Ray takes SIGTERM
            signal.signal(number, handler)
    try:
        yield address
    finally:
        ray.shutdown()


class Mailbox:
    """Where tasks leave their news, and see whether they are to stop. It lives as an actor."""

    def __init__(self) -> None:
        self._news: list[tuple[str, str, tuple[Any, ...]]] = []
        self._stopping = False

    def tell(self, name: str, what: str, values: tuple[Any, ...]) -> None:
        self._news.append((name, what, values))

    def take(self) -> list[tuple[str, str, tuple[Any, ...]]]:
        news, self._news = self._news, []
        return news

    def stop(self) -> None:
        self._stopping = True

    def stopping(self) -> bool:
        return self._stopping


class _RayTasks:
    """The cluster as `cluster.py` sees it."""

    poll_s = 0.2

    def __init__(self, asked: Ray, bench: Bench, every: float) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.threads, self.every = asked.threads, every
        beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=beside).remote()
        self.bench = ray.put(anywhere(bench))
        options = {"num_cpus": asked.cpus_per_cell, "num_gpus": asked.gpus_per_cell, "max_retries": 0}
        self.work = ray.remote(**options)(_work)
        self.refs: dict[str, ObjectRef] = {}
        self.begun = set[str]()

    def begin(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            # The bench in a list, which Ray hands over as it is: the task looks at the version first.
            self.refs[job.name] = self.work.options(name=job.name).remote(
                job, [self.bench], self.threads, self.every, self.mailbox, __version__
            )

    def gone(self) -> Mapping[str, Death]:
        import ray

        names = {ref: name for name, ref in self.refs.items()}
        ended, _ = ray.wait([*names], num_returns=len(names), timeout=0) if names else ([], [])
        found = {names[ref]: self._death(ref) for ref in ended}
        for name in found:
            del self.refs[name]
            self.begun.discard(name)
        return found

    def _death(self, ref: "ObjectRef") -> Death:
        import ray

        try:
            ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # nobody's death: it would come again
            return Death(f"its task failed: {error.cause!r}", again=False)
        except ray.exceptions.OutOfMemoryError:
            return Death("its task was ended by Ray for want of memory")
        except ray.exceptions.RayError as error:
            return Death(f"its task died ({type(error).__name__})")
        return Death("its task ended without a word")

    def news(self) -> Sequence[tuple[str, str, tuple[Any, ...]]]:
        import ray

        try:
            news = ray.get(self.mailbox.take.remote())
        except ray.exceptions.RayError as error:
            raise UserError(
                f"The Ray cluster is gone ({type(error).__name__}). The same command goes on from the last snapshots."
            ) from error
        self.begun |= {name for name, what, _ in news if what == "ready"}
        return news

    def stop(self) -> Sequence[str]:
        """Those that have not begun never do."""
        import ray

        self.mailbox.stop.remote()
        waiting = self.refs.keys() - self.begun
        for name in waiting:
            ray.cancel(self.refs[name], force=True)
        return [*waiting]

    def kill(self) -> None:
        """Nothing runs any more: whatever is being written is whole or not there."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError):  # the cluster is gone, and all with it
            for ref in self.refs.values():
                ray.cancel(ref, force=True)
            ray.kill(self.mailbox)


# ---- in the task ------------------------------------------------------------------------------------------------------


def _work(job: Job, bench: "list[ObjectRef]", threads: int, every: float, mailbox: "ActorHandle", version: str) -> None:
    import ray

    told: list[ObjectRef] = []

    def carry(what: str, values: tuple[Any, ...]) -> None:
        told[:] = [mailbox.tell.remote(job.name, what, values)]

    wire = Wire(carry, every)
    try:
        check_version(version)
    except UserError as error:
        wire.send("raised", error)
    else:
        with Stop(()) as stop, _listening(mailbox, stop):
            task(job, ray.get(bench[0]), threads, wire)
    ray.get(told)  # before the end of the task is known


@contextlib.contextmanager
def _listening(mailbox: "ActorHandle", stop: Stop) -> Iterator[None]:
    """While the block runs, it stops when it is asked to, or there is nobody left to ask."""
    import ray

    ended = threading.Event()

    def listen() -> None:
        while not ended.wait(STOP_S):
            try:
                stop.requested = stop.requested or ray.get(mailbox.stopping.remote())
            except ray.exceptions.RayError:
                stop.requested = True

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        ended.set()
        listener.join()
