"""Published likelihoods by the ODE: in a column of their own, held against measured ones alone, never against a bound."""

import pytest
from records import INCEPTION, make_record

from ddpm_bench.config.grid import Grid
from ddpm_bench.config.metrics import BOUNDS, LIKELIHOOD
from ddpm_bench.config.published import Published
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.likelihoods import OdeLikelihood
from ddpm_bench.records.record import Record
from ddpm_bench.report.published_verdicts import verdicts
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.sections.published_numbers import published_numbers_section
from ddpm_bench.report.summary import Summary, summaries
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.report.writers.numbers import to_frame

GRID = load_grid("score-sde-cifar10")
FLOW = "flow-p-1000"
HEADING = "NLL by the ODE, test, bits/dim ↓"
AS_PUBLISHED = OdeLikelihood(
    split="test", images=10_000, draws=5, dequantisation="released", sigma_0=1e-3, rtol=1e-5, atol=1e-5, total=3.31,
    standard_error=0.01, draw_error=0.001, prior=2.0, flow=1.31, calls=150.0,
)  # fmt: skip


def measured(seed: int = 0, **ode: object) -> Record:
    record = make_record(
        GRID, FLOW, seed, preset="paper", extractor=INCEPTION, overrides={"training": {"steps": 1_300_000}}
    )
    likelihood = AS_PUBLISHED.model_copy(update=ode)
    found = record.final.metrics | {LIKELIHOOD: likelihood.total}
    last = record.final.model_copy(update={"metrics": found})
    return record.model_copy(update={"ode": likelihood, "checkpoints": (last,), "axes": GRID.axes})


def summary_of(*records: Record) -> Summary:
    return summaries(records, GRID)[0]


def test_the_published_likelihood_stands_in_a_column_of_its_own_with_its_place() -> None:
    table = make_table(summary_of(measured()))
    [line] = [line for line in table.lines if line.fields[table.columns.index(HEADING)].text]
    field = line.fields[table.columns.index(HEADING)]
    assert field.text == "3.28" and "last checkpoint" in dict(table.notes)[field.note]
    assert not any(head.text.startswith("NLL, test") for head in table.heads)
    frame = to_frame([summary_of(measured())])
    assert frame.loc[frame.cell == FLOW, "published_nll_ode"].item() == 3.28
    assert frame.loc[frame.cell == FLOW, "published_nll_test"].isna().all()


def test_it_is_held_against_the_likelihood_and_against_no_bound() -> None:
    summary = summary_of(*(measured(seed, total=3.30 + 0.01 * seed) for seed in range(3)))
    assert summary.comparable_in(LIKELIHOOD) and BOUNDS["test"] not in summary.differences
    assert not summary.bounds_comparable  # no bound is published
    [found] = [one for one in verdicts(summary) if one.key == LIKELIHOOD]
    assert found.published == 3.28 and found.measured == pytest.approx(3.31) and found.said == "within"
    text = to_markdown(published_numbers_section(summary))
    assert "| NLL by the ODE of test images | comparable" in text


@pytest.mark.parametrize(
    ("change", "name", "published", "here"),
    [
        ({"images": 64}, "ODE's images", "10,000", "64"),
        ({"draws": 2}, "ODE's draws", "5", "2"),
        ({"dequantisation": "level"}, "ODE's dequantisation", "released", "level"),
        ({"rtol": 1e-3}, "ODE's rtol", "1e-05", "0.001"),
    ],
)
def test_each_way_of_measuring_otherwise_is_a_difference_of_the_likelihood_alone(change, name, published, here) -> None:
    summary = summary_of(measured(**change))
    [found] = summary.differences[LIKELIHOOD]
    assert (found.name, found.published, found.here) == (name, published, here)
    assert "how the likelihood by the ODE was measured" in make_table(summary).verdict
    assert "bound" not in make_table(summary).verdict


def test_the_checkpoint_is_that_of_the_likelihood_whatever_that_of_the_scores_is() -> None:
    scores = GRID.conditions.model_copy(update={"checkpoint": "lowest FID during training"})
    [summary] = summaries([measured()], GRID.model_copy(update={"conditions": scores}))
    assert summary.comparable_in(LIKELIHOOD) and not summary.comparable_in("fd_train")


def test_a_published_likelihood_without_its_conditions_is_refused() -> None:
    held = GRID.model_dump()
    held["conditions"].pop("ode")
    with pytest.raises(ValueError, match=r"\[conditions.ode\] must say"):
        Grid.model_validate(held)


def test_a_row_that_a_source_left_blank_has_no_dash_there() -> None:
    cells = [
        cell.model_copy(update={"published": Published(blank=True)}) if cell.name == "flow-pc-1000" else cell
        for cell in GRID.cells
    ]
    table = make_table(summaries([measured()], GRID.model_copy(update={"cells": tuple(cells)}))[0])
    [line] = [line for line in table.lines if (line.group, line.label) == ("1,000 steps", "probability flow, PC")]
    found = {head.text: field.text for head, field in zip(table.heads, line.fields, strict=True)}
    assert found["FID ↓"] == "–" and found[HEADING] == ""
