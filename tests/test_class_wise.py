"""Scores of samples by the class that they were asked to be of."""

from pathlib import Path

import numpy as np
import pytest
import torch
from records import EMBEDDED, make_checkpoint, make_record
from scipy.linalg import sqrtm
from tiny_models import tiny_checkpoint

from ddpm_bench.config.settings import DataSettings, SamplingSettings, ScoringSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data import load_data
from ddpm_bench.measurement.measure import Scored, Task, score
from ddpm_bench.metrics.class_wise import Classes, class_wise
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.metrics.features import Outputs
from ddpm_bench.models.model import load_model
from ddpm_bench.records.classes import ClassScores
from ddpm_bench.records.protocol import enough_for_distance
from ddpm_bench.records.record import Record
from ddpm_bench.report.sections.classes import classes_section
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.html import block_html
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.runtime import Runtime

INFO = EMBEDDED.model_copy(update={"feature_dim": 3, "classes": 3})
GRID = load_grid("table2")


def frechet_in_numpy(a: np.ndarray, b: np.ndarray) -> float:
    root = sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    return float(
        np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root)
    )


def drawn(known: bool = True) -> tuple[Outputs, torch.Tensor, Classes]:
    """40 samples and 60 images of 3 features; class 2 has 12 samples and 11 images, one fewer than 4 for each feature."""
    draw = torch.Generator().manual_seed(0)
    asked = torch.tensor([0] * 14 + [1] * 14 + [2] * 12)[torch.randperm(40, generator=draw)]
    training = torch.tensor([0] * 12 + [1] * 37 + [2] * 11)[torch.randperm(60, generator=draw)]
    features, logits, real = (torch.randn(n, 3, generator=draw, dtype=torch.float64) for n in (40, 40, 60))
    return Outputs(features + asked[:, None], logits), real, Classes(asked, training, ("a", "b", "c"), known)


def test_each_class_is_scored_by_its_own_samples_and_its_own_training_images() -> None:
    outputs, real, classes = drawn()
    found = class_wise(outputs, real, classes, INFO)
    assert [(one.name, one.samples, one.training_images) for one in found] == [
        ("a", 14, 12),
        ("b", 14, 37),
        ("c", 12, 11),
    ]
    for number, one in enumerate(found):
        mine = (classes.asked == number).numpy()
        right = outputs.logits.numpy()[mine].argmax(1) == number
        assert one.metrics["class_agreement"] == pytest.approx(right.mean())
        if number < 2:
            of_class = real.numpy()[(classes.training == number).numpy()]
            expected = frechet_in_numpy(outputs.features.numpy()[mine], of_class)
            assert one.metrics["fd_train"] == pytest.approx(expected, rel=1e-9)
    assert "fd_train" not in found[2].metrics


def test_a_distance_takes_four_images_a_feature_of_both_sets() -> None:
    assert enough_for_distance(12, 12, INFO)
    assert not enough_for_distance(11, 12, INFO) and not enough_for_distance(12, 11, INFO)


def test_classes_that_the_extractor_does_not_know_have_a_distance_and_no_agreement() -> None:
    found = class_wise(*drawn(known=False), INFO)
    assert [set(one.metrics) for one in found] == [{"fd_train"}, {"fd_train"}, set()]


def test_samples_of_one_class_are_scored_as_that_class_alone() -> None:
    outputs, real, classes = drawn()
    of_one = Classes(torch.full((40,), 1), classes.training, classes.names, known=True)
    [found] = class_wise(outputs, real, of_one, INFO)
    assert (found.name, found.samples, found.training_images) == ("b", 40, 37)


def test_a_model_that_is_told_classes_is_scored_by_class_and_any_other_is_not(tmp_path: Path) -> None:
    data = load_data(DataSettings(size=16, resize="average"))
    extractor = load_extractor("embedded", size=16, cache=tmp_path / "cache")
    scoring = ScoringSettings(extractor="embedded", precision_recall=False)
    task = Task(data, extractor, SamplingSettings(samples=20), scoring, 0)
    for classes, expected in ((10, data.classes), (0, ()), (3, ())):  # 3 are not the data's
        model = load_model(tiny_checkpoint(tmp_path / f"model-{classes}", classes=classes))
        found = score(model, task, Runtime(cache=tmp_path / "cache"), tmp_path / f"row-{classes}.json")
        assert tuple(one.name for one in found.classes) == expected
        assert all((one.samples, set(one.metrics)) == (2, {"class_agreement"}) for one in found.classes)
        shares = [one.metrics["class_agreement"] for one in found.classes]
        assert not shares or sum(shares) / 10 == pytest.approx(found.metrics["class_agreement"])
        assert sum(one.training_images for one in found.classes) in (0, len(data.train))


# ---- records and reports --------------------------------------------------------------------------------------------------


def test_records_and_kept_scores_of_older_versions_have_none() -> None:
    values = make_record(GRID, "eps-mse-fixed").as_json()
    del values["classes"]
    assert Record.model_validate(values).classes == ()
    assert Scored.model_validate({"metrics": {}, "quantiles": {}}).classes == ()


def records(distance: bool) -> list[Record]:
    """Two cells of two seeds; class 'bag' of the second cell has no distance."""
    found = []
    for cell, level in (("eps-mse-fixed", 0.9), ("eps-L-fixed", 0.6)):
        for seed in (0, 1):
            metrics = {"class_agreement": level + 0.02 * seed} | ({"fd_train": 3.0 + seed} if distance else {})
            few = {"class_agreement": 0.5}
            classes = (
                ClassScores(name="<boot>", samples=600, training_images=800, metrics=metrics),
                ClassScores(name="bag", samples=600, training_images=700, metrics=metrics if level > 0.8 else few),
            )
            record = make_record(GRID, cell, seed)
            checkpoint = make_checkpoint(record.settings.training.steps, record.final.metrics | few)
            found.append(record.model_copy(update={"classes": classes, "checkpoints": (checkpoint,)}))
    return found


def test_the_report_has_classes_in_rows_and_cells_in_columns(tmp_path: Path) -> None:
    [summary] = summaries(records(distance=True), GRID)
    text = to_markdown(classes_section(summary))
    assert "600 samples a run that were asked to be of it, and 700 to 800 training images" in text
    assert "class agreement ↑, by class" in text and "FD (embedded) ↓, by class" in text
    lines = [line for line in text.splitlines() if line.startswith("| &lt;boot") or line.startswith("| bag")]
    assert len(lines) == 4 and "0.610 ± 0.014" in lines[0] and "0.910 ± 0.014" in lines[0], lines
    assert "3.50 ± 0.71" in lines[3] and "too few" in lines[3]
    page = "".join(block_html(block, tmp_path) for block in classes_section(summary))
    assert page.count("<details") == 2 and "&lt;boot&gt;" in page and "<boot>" not in page


def test_a_distance_that_no_class_has_is_said_to_need_more_images() -> None:
    [summary] = summaries(records(distance=False), GRID)
    text = to_markdown(classes_section(summary))
    assert "FD (embedded) by class is not given: that takes at least 512 of each (4 for each of 128 features)." in text
    assert "FD (embedded) ↓" not in text


def test_a_grid_without_classes_has_no_such_section() -> None:
    [summary] = summaries([make_record(GRID, "eps-mse-fixed")], GRID)
    assert classes_section(summary) == []
