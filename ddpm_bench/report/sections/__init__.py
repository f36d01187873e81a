"""The page: tables, differences, figures, samples, provenance. As Markdown it reads well on a code host as it is."""

from collections.abc import Mapping, Sequence

from ddpm_bench.records.row import Row as EvaluatedRow
from ddpm_bench.report.blocks import Block, Bold, Bullets, Heading, Paragraph, Results
from ddpm_bench.report.compact_table import compact_table
from ddpm_bench.report.figures import DrawnFigure
from ddpm_bench.report.pictures import Picture
from ddpm_bench.report.results_table import MEASURED_HERE, PUBLISHED, ResultsTable
from ddpm_bench.report.sections.across import FIGURES, across_section
from ddpm_bench.report.sections.answer import SAMPLES, answer
from ddpm_bench.report.sections.bounds import bounds_section
from ddpm_bench.report.sections.checkpoints import checkpoints_section
from ddpm_bench.report.sections.claims import claims_section
from ddpm_bench.report.sections.classes import classes_section
from ddpm_bench.report.sections.cost import cost_section
from ddpm_bench.report.sections.provenance import provenance_section
from ddpm_bench.report.sections.published_elsewhere import published_elsewhere_section
from ddpm_bench.report.sections.published_numbers import published_numbers_section
from ddpm_bench.report.sections.samples import samples_section
from ddpm_bench.report.sections.training import CURVES, training_section
from ddpm_bench.report.summary import Summary
from ddpm_bench.report.table_remarks import selection_name


def page(
    summaries: Sequence[Summary],
    tables: Sequence[ResultsTable],
    pictures: Mapping[str, Picture],
    checkpoints: Sequence[EvaluatedRow] = (),
    figures: Sequence[DrawnFigure] = (),
) -> list[Block]:
    """The whole report; `pictures` by name of cell. `figures` lie beside it.

    `checkpoints`: rows of `evaluate --ckpt`, shown in a table of their own.
    """
    first, drawn = summaries[0], {figure.name: figure.block for figure in figures}
    beside = drawn.pop(FIGURES[0] if FIGURES[0] in drawn else SAMPLES, None)
    blocks = [*_head(first), answer(summaries, beside), Results(compact_table(first)), *_set_aside(first)]
    blocks += across_section(first, [drawn.pop(name) for name in FIGURES[1:] if name in drawn])
    of_several = {summary.selection: f": {selection_name(summary)}" for summary in summaries if len(summaries) > 1}
    for summary, table in zip(summaries, tables, strict=True):
        blocks += [Heading(2, f"Table{of_several.get(summary.selection, '')}"), Results(table)]
    blocks += _conditions(first)
    for summary in summaries:
        blocks += published_numbers_section(summary, of_several.get(summary.selection, ""))
    blocks += cost_section(first)
    blocks += claims_section(summaries)
    blocks += classes_section(first)
    blocks += training_section(first, drawn.pop(CURVES, None))
    blocks += checkpoints_section(checkpoints, first.first)
    blocks += bounds_section(first)
    blocks += [Heading(2, "Plots"), *drawn.values()] if drawn else []
    blocks += samples_section(first.shown.rows, pictures)
    blocks += published_elsewhere_section(first)
    return blocks + provenance_section(first)


def _head(summary: Summary) -> list[Block]:
    return [
        Heading(1, f"ddpm-bench: {summary.grid.name}, preset {summary.first.preset}"),
        Paragraph(Bold(summary.grid.title)),
    ]


def _conditions(summary: Summary) -> list[Block]:
    """Whose numbers the table holds, and what they depend on."""
    grid, record = summary.grid, summary.first
    data, settings, extractor = record.data, record.settings, record.extractor
    weights = "" if extractor.verified else " (unverified weights)"
    return [
        Paragraph(f"{PUBLISHED}: {grid.origin}. Rows, order and labels are its own."),
        Paragraph(
            f"{MEASURED_HERE}: {data.name}, {data.shape[1]}x{data.shape[2]} pixels, {data.train_images:,} training "
            f"and {data.test_images:,} test images; "
            f"{settings.training.steps:,} training steps of {settings.training.batch} images, "
            f"{settings.sampling.samples:,} samples a run in {summary.sampling_steps} steps; features: "
            f"{extractor.name}{weights}. Distances are to the training images."
        ),
    ]


def _set_aside(summary: Summary) -> list[Block]:
    """What is not in the report, and why."""
    if not summary.set_aside:
        return []
    said = tuple(f"{one.what}: {one.why}" for one in summary.set_aside)
    return [Paragraph((Bold("Set aside, and in no number of this report"), f" ({len(said)})")), Bullets(said)]
