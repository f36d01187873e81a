"""One cell from start to finish: what it records, that it goes on bitwise after an interruption, and that divergence is a result."""

import json
import sys

import pytest
import torch
from conftest import SMALL

from ddpm_bench.config.preset import load_preset, parse_set, resolve
from ddpm_bench.config.settings import DataSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data import ImageData, Split, load_data, read_images
from ddpm_bench.diffusion.samplers import Ancestral
from ddpm_bench.errors import Interrupted
from ddpm_bench.experiment.ablate import set_aside
from ddpm_bench.experiment.cell import run_cell, scoring_steps
from ddpm_bench.experiment.job import Bench, Job
from ddpm_bench.measurement import measure as measuring
from ddpm_bench.measurement.bounds import spread_over
from ddpm_bench.measurement.kept import work_beside
from ddpm_bench.measurement.measure import kept_scores
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.models import model
from ddpm_bench.models.model import load_model
from ddpm_bench.records.fields import QUANTILES
from ddpm_bench.records.record import read_record, read_records, write_record
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import read_sealed

DDPM_BENCH = [sys.executable, "-m", "ddpm_bench"]


def ablate(folder, *more):
    return ["ablate", "--preset", "smoke", *SMALL, "--device", "cpu", "--workers", "1",
            "--results", str(folder / "results"), "--no-report", *more]  # fmt: skip


def test_a_record_says_all_that_the_numbers_depend_on(small_run):
    record = read_record(small_run.results / "mu-L-learned-seed0.json")
    assert record.outcome == "done" and record.grid == "table2" and record.preset == "smoke"
    assert record.data.name == "fashion-mnist-10k"
    assert len(record.data.sha256) == 64 and len(record.extractor.sha256) == 64
    assert record.data.shape == (1, 16, 16)
    assert (record.samples, record.sampling_steps, record.images_seen) == (32, 10, 40 * 16)
    assert {"torch", "torch-fidelity", "ddpm-bench", "python"} <= set(record.versions)
    assert record.hardware["device"] == "cpu" and record.hardware["cores"]
    assert {"is_mean", "is_std", "fd_train", "kid_mean", "precision", "recall"} <= set(record.last.metrics)
    assert set(record.anchors) == {"held-out real", "blurred", "uniform noise"}
    assert {"training", "sampling", "scoring", "bound"} <= set(record.wall_time_s)
    assert (small_run.results / record.sample_grid).is_file()
    assert set(record.pictures) == {"progressive", "neighbours-pixel", "neighbours-feature"}
    assert all((small_run.results / name).is_file() for name in record.pictures.values())
    assert {space: len(found.samples) for space, found in record.neighbours.items()} == {"pixel": 8, "feature": 8}
    assert all(len(found.test) == 8 for found in record.neighbours.values())
    assert set(record.last.quantiles) == {"is_mean", "fd_train", "bound_test_bits_per_dim", "bound_train_bits_per_dim"}
    for key, interval in record.last.quantiles.items():
        assert len(interval) == len(QUANTILES) and interval[0] < record.last.metrics[key] < interval[-1]
    assert record.training_log[-1].step == 40


def test_the_bound_in_a_record_is_the_sum_of_its_terms(small_run):
    for record in read_records(small_run.results):
        assert {bound.split for bound in record.bounds} == {"test", "train"}
        for bound in record.bounds:
            assert bound.total == pytest.approx(bound.prior + sum(bound.terms), rel=1e-9)
            assert record.last.metrics[f"bound_{bound.split}_bits_per_dim"] == bound.total
            assert record.last.quantiles[f"bound_{bound.split}_bits_per_dim"] == bound.quantiles


def test_a_cell_that_diverges_is_a_result_and_the_grid_goes_on(call, tmp_path):
    explosive = (
        "--cells",
        "eps-L-learned,eps-mse-fixed",
        "--set",
        "training.learning_rate=1e30",
        "--set",
        "training.warmup=0",
    )
    answer = call(*ablate(tmp_path, *explosive))
    assert answer.code == 0
    records = read_records(tmp_path / "results")
    assert {record.outcome for record in records} == {"diverged"} and len(records) == 2
    for record in records:
        assert record.divergence.reason and 1 <= record.divergence.step <= 40
    assert "diverged" in answer.out
    again = call(*ablate(tmp_path, *explosive))
    assert again.code == 0 and "measured already" in again.err


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    """A cell's surroundings with a handful of images and the shipped extractor; nothing scores worse than noise."""
    images = load_data(DataSettings(source="embedded", size=16, resize="average")).test.images
    data = ImageData("few", Split(images[:40]), Split(images[40:64]), "f" * 64)
    extractor = load_extractor("embedded", size=16, cache=tmp_path / "cache")
    monkeypatch.setattr(measuring, "anchors", lambda *_: {"uniform noise": {"fd_train": 1e9}})
    return Bench(tmp_path / "results", data, extractor, Runtime(cache=tmp_path / "cache"))


def tiny_job(*assignments: str) -> Job:
    grid = load_grid("table2")
    [cell] = grid.select(["mu-L-fixed"])
    small = ("training.steps=4", "sampling.samples=12", "scoring.bound_images=2", "training.log_every=2", *assignments)
    return Job("table2", "smoke", cell, resolve(cell, load_preset("smoke"), parse_set(small)), seed=0)


def test_samples_that_are_not_finite_are_a_divergence_and_no_picture(bench, monkeypatch):
    real = Ancestral.step

    def broken(*given):
        done = real(*given)
        return done._replace(x=done.x * float("nan"))

    monkeypatch.setattr(Ancestral, "step", broken)
    record = run_cell(tiny_job(), bench)
    assert record.outcome == "diverged" and record.divergence.step == 4
    assert record.divergence.reason.startswith("12 of 12 samples are not finite")
    assert record.checkpoints == record.bounds == () and record.sample_grid is None and record.pictures == {}
    assert not list(bench.results.rglob("*.png"))


def test_weights_that_are_not_finite_are_a_divergence_too(bench, monkeypatch):
    monkeypatch.setattr(model, "not_finite", lambda weights: "last.bias has 1 of 1 values that are not finite")
    record = run_cell(tiny_job(), bench)
    assert record.outcome == "diverged" and record.divergence.step == 4
    assert record.divergence.reason.startswith("The weights cannot be sampled or scored: last.bias has 1 of 1")


def stopped(*_: object) -> None:
    raise Interrupted


def test_after_an_interruption_behind_the_scores_only_the_rest_is_done(bench, monkeypatch):
    job = tiny_job("scoring.neighbours=3", "training.snapshot_every=2")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(measuring, "_bounds", stopped)
        run_cell(job, bench)
    work = work_beside(bench.record(job))
    kept = kept_scores(load_model(work).function, bench.task(job), bench.runtime, bench.record(job)).read()
    (shown,) = work.glob("pictures-*/found.json")
    whole = measuring.Shown.model_validate(read_sealed(shown))
    for name in ("scores", "find_neighbours", "draw_progressive"):
        monkeypatch.setattr(measuring, name, lambda *_, **__: pytest.fail("done again"))
    record = run_cell(job, bench)
    assert [checkpoint.step for checkpoint in record.checkpoints] == [2, 4]
    assert kept.metrics and kept.metrics.items() <= record.last.metrics.items()
    assert kept.quantiles and kept.quantiles.items() <= record.last.quantiles.items()
    assert (record.pictures, record.neighbours) == (whole.pictures, whole.neighbours)
    assert len(record.neighbours["pixel"].samples) == 3


def test_fresh_sets_pictures_aside_with_their_record(bench):
    job = tiny_job("scoring.neighbours=1", "scoring.bootstrap=0")
    record = run_cell(job, bench)
    assert record.last.quantiles == {} and record.bounds[0].quantiles == ()
    write_record(bench.results, record)
    names = {path.name for path in bench.results.iterdir()}
    assert names == {"mu-L-fixed-seed0.json", "work", record.sample_grid, *record.pictures.values()}
    set_aside(bench.results, [job])
    (aside,) = bench.results.glob("before-*")
    assert {path.name for path in aside.iterdir()} == names


def test_without_neighbours_there_is_progressive_generation_alone(bench):
    record = run_cell(tiny_job("scoring.neighbours=0", "scoring.bootstrap=0"), bench)
    assert set(record.pictures) == {"progressive"} and record.neighbours == {}
    assert (bench.results / record.pictures["progressive"]).is_file()


def test_snapshots_are_scored_during_training_and_kept_apart_from_the_last(call, tmp_path):
    answer = call(*ablate(tmp_path, "--cells", "eps-mse-fixed", "--set", "training.snapshot_every=15"))
    assert answer.code == 0
    (record,) = read_records(tmp_path / "results")
    assert [checkpoint.step for checkpoint in record.checkpoints] == [15, 30, 40]
    assert record.last.step == 40
    assert record.best.metrics["fd_train"] == min(c.metrics["fd_train"] for c in record.checkpoints)


def test_divergence_after_a_scored_snapshot_keeps_the_snapshots_scores(call, monkeypatch, tmp_path):
    # The learning rate cannot change during a run, so the watch is what sees a bad step 20.
    from ddpm_bench.training.divergence import Watch

    real = Watch.look
    monkeypatch.setattr(
        Watch, "look", lambda self, step, loss, norm: real(self, step, loss * (float("nan") if step == 20 else 1), norm)
    )
    answer = call(*ablate(tmp_path, "--cells", "mu-L-fixed", "--set", "training.snapshot_every=15"))
    assert answer.code == 0
    (record,) = read_records(tmp_path / "results")
    assert record.outcome == "diverged" and record.divergence.step == 20
    assert [checkpoint.step for checkpoint in record.checkpoints] == [15]
    assert (tmp_path / "results" / record.sample_grid).is_file()


def test_scores_of_other_sampling_settings_are_not_taken_for_these(call, tmp_path):
    one_cell = ("--cells", "mu-L-fixed")
    assert call(*ablate(tmp_path, *one_cell)).code == 0
    (first,) = read_records(tmp_path / "results")
    (tmp_path / "results" / "mu-L-fixed-seed0.json").unlink()  # as if interrupted after scoring
    assert call(*ablate(tmp_path, *one_cell, "--set", "sampling.samples=48")).code == 0
    (second,) = read_records(tmp_path / "results")
    assert (first.samples, second.samples) == (32, 48)
    assert first.last.metrics["fd_train"] != second.last.metrics["fd_train"]


def test_scoring_steps_are_the_snapshots_and_the_end():
    cell = load_grid("table2").cells[0]

    def steps(*assignments):
        return scoring_steps(resolve(cell, load_preset("smoke"), parse_set(assignments)))

    assert steps() == [100]
    assert steps("training.snapshot_every=40") == [40, 80, 100]
    assert steps("training.snapshot_every=50") == [50, 100]


def test_train_then_sample_then_evaluate(call, tmp_path):
    trained = call(
        "train", "--cell", "eps-mse-fixed", "--preset", "smoke", *SMALL, "--out", tmp_path / "ckpt", "--json"
    )
    assert trained.code == 0 and json.loads(trained.out)["step"] == 40
    for out in ("images.npz", "images"):
        sampled = call("sample", "--ckpt", tmp_path / "ckpt", "--samples", "40", "--out", tmp_path / out)
        assert sampled.code == 0
    images = read_images(tmp_path / "images.npz")
    assert images.shape == (40, 1, 16, 16) and torch.equal(images, read_images(tmp_path / "images"))
    more = call(
        "sample", "--ckpt", tmp_path / "ckpt", "--samples", "70", "--out", tmp_path / "more.npz", "--batch", "64"
    )
    assert more.code == 0
    # Other batches and counts give the same images up to float rounding.
    assert (read_images(tmp_path / "more.npz")[:40].int() - images.int()).abs().max() <= 1
    scored = call(
        "evaluate", "--samples", tmp_path / "images.npz", "--resize", "average", "--cache", tmp_path / "cache", "--json"
    )
    assert scored.code == 0
    result = json.loads(scored.out)
    assert result["metrics"]["fd_train"] > result["anchors"]["held-out real"]["fd_train"]
    assert result["extractor"]["labels"][0] == "FD (embedded)"
    shown = call("evaluate", "--samples", tmp_path / "images", "--resize", "average", "--cache", tmp_path / "cache")
    assert "FD (embedded)" in shown.out and "Not comparable" in shown.out


def test_samples_are_never_written_over_anything(call, tmp_path):
    (tmp_path / "mine.npz").write_text("precious")
    trained = call("train", "--cell", "eps-mse-fixed", "--preset", "smoke", *SMALL, "--out", tmp_path / "ckpt")
    assert trained.code == 0
    answer = call("sample", "--ckpt", tmp_path / "ckpt", "--out", tmp_path / "mine.npz")
    assert answer.code == 2 and "left as it is" in answer.err
    assert (tmp_path / "mine.npz").read_text() == "precious"


def test_spread_takes_images_from_the_whole_of_a_sorted_set():
    labels = torch.arange(10).repeat_interleave(20)
    assert set(spread_over(labels, 10).tolist()) == set(range(10))
    assert torch.equal(spread_over(labels, 1000), labels)
