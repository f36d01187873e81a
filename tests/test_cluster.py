"""Tasks of any cluster: deaths cost time alone, up to a limit; news in a file; what a task makes of its machine."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_bench, tiny_jobs

from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.experiment.launchers import Ray, Slurm, choose_launcher
from ddpm_bench.experiment.launchers.cluster import DEATHS, Death, Tasks, anywhere, check_version, task
from ddpm_bench.experiment.launchers.launcher import Asked
from ddpm_bench.experiment.launchers.news_file import NewsFile
from ddpm_bench.experiment.launchers.wire import Wire
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.observer import Observer, Reading


class Scripted:
    """A cluster whose tasks come to what is written down for each try of a job: an end, or a death."""

    poll_s = 0.0

    def __init__(self, script) -> None:
        self.script, self.begun, self.told, self.dead = script, [], [], {}

    def begin(self, jobs) -> None:
        self.begun.append([job.name for job in jobs])
        for job in jobs:
            match self.script[job.name].pop(0):
                case Death() as death:
                    self.dead[job.name] = death
                case action if callable(action):
                    action()
                    self.dead[job.name] = Death("a node is gone")
                case end:
                    self.told += [(job.name, "ready", ()), (job.name, *end)]
                    self.dead[job.name] = Death("ended without a word")

    def gone(self):
        dead, self.dead = self.dead, {}
        return dead

    def news(self):
        told, self.told = self.told, []
        return told

    def stop(self):
        return []


DIED, FAILED = Death("its machine is gone"), ("ended", ("no luck",))


@pytest.fixture
def two(tmp_path):
    return tiny_jobs(tmp_path)


def run(folder, jobs, script, most=9):
    cluster = Scripted(script)
    tasks = Tasks(cluster, jobs, tiny_bench(folder), {job.name: Observer() for job in jobs}, most)
    return [(job.name, result) for job, result in tasks.run()], cluster.begun


def test_a_task_that_dies_is_begun_again_and_said(tmp_path, two, messages, capsys):
    one, other = (job.name for job in two)
    ended, begun = run(tmp_path, two, {one: [DIED, FAILED], other: [FAILED]})
    assert begun == [[one, other], [one]] and sorted(ended) == [(other, "no luck"), (one, "no luck")]
    assert (
        f"{one}: its machine is gone. It is begun again, and goes on from its last snapshot" in capsys.readouterr().err
    )


def test_after_so_many_deaths_in_a_row_without_getting_on_it_has_failed(tmp_path, two):
    ended, begun = run(tmp_path, two[:1], {two[0].name: [DIED] * 9})
    assert len(begun) == DEATHS and ended == [
        (
            two[0].name,
            "its machine is gone, 4 times without getting on. The same command goes on from its last snapshot",
        )
    ]


def test_deaths_between_which_something_new_was_kept_do_not_count(tmp_path, two):
    job, work = two[0], tmp_path / "results" / "work" / two[0].name

    def gets_on(step):
        return lambda: (work / f"step-{step:06}").mkdir(parents=True)

    ended, begun = run(tmp_path, [job], {job.name: [*map(gets_on, range(3 * DEATHS)), FAILED]})
    assert len(begun) == 3 * DEATHS + 1 and ended == [(job.name, "no luck")]


def test_what_would_come_again_is_not_tried_again(tmp_path, two):
    ended, begun = run(tmp_path, two[:1], {two[0].name: [Death("its job was cancelled", again=False)]})
    assert len(begun) == 1 and ended[0][1].startswith("its job was cancelled. The same command")


def test_no_more_run_at_a_time_than_are_wanted(tmp_path, two):
    one, other = (job.name for job in two)
    assert run(tmp_path, two, {one: [FAILED], other: [FAILED]}, most=1)[1] == [[one], [other]]


def test_of_jobs_that_share_a_training_one_comes_first(tmp_path, two):
    first, second, other = (replace(job, seed=seed) for seed, job in enumerate((two[0], two[0], two[1])))
    jobs = [replace(first, shares=first), replace(second, shares=first), other]
    _, begun = run(tmp_path, jobs, {job.name: [FAILED] for job in jobs})
    assert begun == [[jobs[0].name, other.name], [jobs[1].name]]


def test_an_error_that_a_user_must_mend_ends_the_grid(tmp_path, two):
    mistake = ("raised", (UserError("Choose another folder."),))
    with pytest.raises(UserError, match="Choose another folder"):
        run(tmp_path, two[:1], {two[0].name: [mistake]})


def test_a_stop_is_no_failure_and_nothing_is_begun_again(tmp_path, two):
    with Stop(()) as stop, pytest.raises(Interrupted):

        def asked():
            stop.requested = True

        run(tmp_path, two[:1], {two[0].name: [asked]})


# ---- in the task ------------------------------------------------------------------------------------------------------


def test_a_task_without_the_gpu_that_it_needs_says_where_it_is(tmp_path, two):
    bench, told = tiny_bench(tmp_path), []
    bench = replace(bench, runtime=replace(bench.runtime, device=torch.device("cuda")))
    assert task(two[0], bench, 1, Wire(lambda *what: told.append(what), math.inf))
    assert told[0] == ("ready", ()) and told[-1][0] == "raised"
    assert "finds no GPU" in str(told[-1][1][0]) and two[0].name in str(told[-1][1][0])


def test_a_task_that_was_stopped_tells_no_end(tmp_path, two):
    told, threads = [], torch.get_num_threads()
    with Stop(()) as stop:
        stop.requested = True
        assert not task(two[0], tiny_bench(tmp_path), threads + 1, Wire(lambda *what: told.append(what), math.inf))
    assert [what for what, _ in told] == ["ready"] and torch.get_num_threads() == threads


def test_paths_mean_the_same_in_any_folder(tmp_path, monkeypatch):
    bench = tiny_bench(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = anywhere(replace(bench, results=Path("r"), runtime=replace(bench.runtime, cache=Path("c"))))
    assert (found.results, found.runtime.cache, found.tensorboard) == (tmp_path / "r", tmp_path / "c", None)


def test_another_version_of_the_package_is_refused(monkeypatch):
    with pytest.raises(UserError, match=r"the command that began this is 0\.0\.1"):
        check_version("0.0.1")


@pytest.mark.parametrize(("extra", "package", "launcher"), [("ray", "ray", Ray), ("slurm", "submitit", Slurm)])
def test_without_the_extra_it_is_named(monkeypatch, tmp_path, two, extra, package, launcher):
    monkeypatch.setitem(sys.modules, package, None)
    chosen = choose_launcher(Asked(extra), 2, torch.device("cpu"))
    assert isinstance(chosen, launcher)
    with pytest.raises(UserError, match=rf"needs the package {package}.* pip install 'ddpm-bench\[{extra}\]'"):
        list(chosen.run(two, tiny_bench(tmp_path), lambda job: Observer()))


# ---- news in a file ---------------------------------------------------------------------------------------------------


def test_news_comes_out_of_a_file_as_it_went_in(tmp_path):
    file, reading = NewsFile(tmp_path / "news.jsonl"), Reading("x: training", 3, 10, 2.5, "3 images/s", math.nan)
    sent = [("ready", ()), ("phase", ("training",)), ("scores", (5, {"fd_train": 1.5})), ("log", (20, "100% é\n"))]
    assert list(file.read()) == []
    for what, values in sent:
        file.append(what, values)
    assert list(file.read()) == sent and list(file.read()) == []
    file.append("show", (reading,))
    ((_, (found,)),) = file.read()
    assert (found.title, found.done, found.eta) == (reading.title, 3, reading.eta) and math.isnan(found.loss)
    file.append("raised", (OSError(28, "No space left on device", "/x"),))
    file.append("raised", (UserError("Mend it."),))
    (_, (full,)), (_, (mistake,)) = file.read()
    assert (full.errno, full.filename) == (28, "/x") and isinstance(mistake, UserError) and str(mistake) == "Mend it."


def test_the_half_line_of_a_killed_process_is_left_out_and_a_line_is_read_when_it_is_whole(tmp_path):
    path = tmp_path / "news.jsonl"
    path.write_text('\n["phase", "train')
    file = NewsFile(path)
    assert list(file.read()) == []
    NewsFile(path).append("phase", ("scoring",))
    assert list(file.read()) == [("phase", ("scoring",))]
    assert NewsFile(path).skip_to_last() == ("phase", ("scoring",))
    assert json.loads(path.read_text().splitlines()[-1]) == ["phase", "scoring"]


def test_who_takes_a_job_up_reads_on_from_its_last_line(tmp_path):
    file = NewsFile(tmp_path / "news.jsonl")
    assert file.skip_to_last() is None
    for name in ("training", "sampling", "scoring"):
        file.append("phase", (name,))
    assert file.skip_to_last() == ("phase", ("scoring",)) and list(file.read()) == [("phase", ("scoring",))]
