"""Scores of samples by the class that they were asked to be of; folded, since classes may be many."""

from collections.abc import Mapping, Sequence

from ddpm_bench.config.metrics import AGREEMENT, DISTANCE, METRICS
from ddpm_bench.records.classes import ClassScores
from ddpm_bench.records.protocol import SAMPLES_A_FEATURE, fewest_for_distance
from ddpm_bench.records.record import ExtractorInfo
from ddpm_bench.report.blocks import Block, Details, Entry, Heading, Paragraph, Symbols, Table
from ddpm_bench.report.bounds import row_name
from ddpm_bench.report.results_table import number
from ddpm_bench.report.summary import Estimate, MeasuredCell, Summary, over_seeds

TITLE = "By class"
TOO_FEW = "too few"
ByClass = Mapping[str, Mapping[str, Estimate]]
"""By name of the class and by metric."""


def classes_section(summary: Summary) -> list[Block]:
    """Nothing where no samples were asked to be of a class of the data. Of the last checkpoint, as records are."""
    found = [one for row in summary.rows for record in row.done for one in record.classes]
    if not found:
        return []
    names, extractor = list(dict.fromkeys(one.name for one in found)), summary.first.extractor
    by_cell = [(row, by_class) for row in summary.rows if (by_class := _by_class(row))]
    tables = [table for key in (AGREEMENT, DISTANCE) for table in _table(key, names, by_cell, extractor)]
    return [Heading(2, TITLE), Paragraph(_said(found, extractor)), *tables]


def _by_class(row: MeasuredCell) -> ByClass:
    return over_seeds([(one.name, one.metrics) for record in row.done for one in record.classes])


def _table(
    key: str, names: Sequence[str], by_cell: Sequence[tuple[MeasuredCell, ByClass]], extractor: ExtractorInfo
) -> list[Block]:
    """Classes in rows, cells in columns; nothing for a metric that no class has."""
    if not any(key in estimates for _, by_class in by_cell for estimates in by_class.values()):
        return []
    missing = TOO_FEW if key == DISTANCE else ""

    def entry(estimates: Mapping[str, Estimate]) -> str:
        return number(key, estimates[key]) if key in estimates else missing

    heads: tuple[Entry, ...] = ("class", *(Symbols(row_name(row)) for row, _ in by_cell))
    lines = tuple((name, *(entry(by_class.get(name, {})) for _, by_class in by_cell)) for name in names)
    title = f"{METRICS[key].column(extractor.labels)}, {TITLE.lower()}"
    return [Details(title, (Table(title, "l" + "r" * len(by_cell), heads, lines),))]


def _said(found: Sequence[ClassScores], extractor: ExtractorInfo) -> str:
    """Of how many images the scores are, and what is not given for the lack of them."""
    distance, fewest = extractor.labels[0], fewest_for_distance(extractor)
    of_samples, of_training = (
        _range([one.samples for one in found]),
        _range([one.training_images for one in found]),
    )
    said = f"Of a class: {of_samples} samples a run that were asked to be of it, and {of_training} training images."
    rule = f"{fewest:,} of each ({SAMPLES_A_FEATURE} for each of {extractor.feature_dim:,} features)"
    if any(DISTANCE in one.metrics for one in found):
        said += (
            f" {distance} is that to the training images of the class, where there are at least {rule}. Fewer images bias it more "
            "than that of all samples: compare classes and cells, not the two."
        )
    else:
        said += f" {distance} by class is not given: that takes at least {rule}."
    return said


def _range(counts: Sequence[int]) -> str:
    return " to ".join(f"{count:,}" for count in dict.fromkeys((min(counts), max(counts))))
