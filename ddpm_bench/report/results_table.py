"""The table, once, in plain unicode: rows, order and groups of the paper, measured and published numbers side by side.

The writers of Markdown, LaTeX and the terminal only lay it out. What stands in a field is one of four things that are
never confused: a number (marked, where the cell has failed), DASH (diverged, or blank in the source), NOT_MEASURED (nobody
has run it), NOT_SCORED (run, but without this metric). Where a row or a source has nothing to say, as rows of other
models among measured numbers, it is EMPTY.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from ddpm_bench.config.grid import Cell
from ddpm_bench.config.metrics import AGREEMENT, BOUNDS, DISTANCE, LIKELIHOOD, METRICS, SCORE
from ddpm_bench.config.published import Published
from ddpm_bench.records.record import Record
from ddpm_bench.report.best import best_cells, bold_in_words
from ddpm_bench.report.summary import Estimate, MeasuredCell, Summary
from ddpm_bench.report.table_remarks import (
    DASH,
    EMPTY,
    NOT_MEASURED,
    NOT_SCORED,
    background,
    common_count,
    divergence_note,
    failure_note,
    meanings,
    setting,
    title,
    unverified,
    verdict,
)

BOUND_TEST = BOUNDS["test"]
ANCHORS = "Anchors: known images, scored in the same way"
MEASURED_HERE, PUBLISHED = "Measured here", "Published"
QUALITY = ("density", "coverage", "copies", "copy_distance", "sfd_train", "mmd_train", AGREEMENT)
COLUMNS = (
    SCORE,
    DISTANCE,
    "fd_infinity",
    "fd_test",
    "kid_mean",
    "precision",
    "recall",
    *QUALITY,
    *BOUNDS.values(),
    LIKELIHOOD,
)
"""Metrics of the measured columns, in order; one that no run has gets no column."""
COMPACT = (SCORE, DISTANCE, BOUND_TEST)
"""Those of a compact table."""


@dataclass(frozen=True)
class SourceColumn:
    """A column of published numbers. `number`: the field of `Published` that says whether the source has it in bold."""

    heading: str
    number: str
    stands_in: Callable[[Published], bool]
    write: Callable[[Published], str]


IS = SourceColumn("IS ↑", "is_mean", lambda p: p.is_mean is not None, lambda p: p.texts["is"])
FID = SourceColumn("FID ↓", "fid", lambda p: p.fid is not None, lambda p: p.texts["fid"])
BESIDE_FID = (
    SourceColumn("sFID ↓", "sfid", lambda p: p.sfid is not None, lambda p: p.texts["sfid"]),
    SourceColumn("precision ↑", "precision", lambda p: p.precision is not None, lambda p: p.texts["precision"]),
    SourceColumn("recall ↑", "recall", lambda p: p.recall is not None, lambda p: p.texts["recall"]),
)
NLL = SourceColumn("NLL, test (train), bits/dim ↓", "nll_test", lambda p: p.has_nll, lambda p: p.texts["nll"])
NLL_TEST = SourceColumn(
    "NLL, test ↓", "nll_test", lambda p: p.nll_test is not None, lambda p: p.texts["nll"].partition(" (")[0]
)
NLL_ODE = SourceColumn(
    "NLL by the ODE, test, bits/dim ↓", "nll_ode", lambda p: p.nll_ode is not None, lambda p: p.texts["nll_ode"]
)
SOURCES, COMPACT_SOURCES = (IS, FID, *BESIDE_FID, NLL, NLL_ODE), (IS, FID, NLL_TEST)
SPLITS = "published ± is the source's own: the spread over splits of one sample set, not over runs"


@dataclass(frozen=True)
class Field:
    """A heading or an entry: text, the letter of its footnote, and shorter text for where there is little room.

    bold: among the best (see `best.py`), or bold in the source. failed: a number of a cell that is no better than no model,
    which is greyed where the writing has grey.
    """

    text: str
    note: str = ""
    brief: str = ""
    bold: bool = False
    failed: bool = False


@dataclass(frozen=True)
class Line:
    """A row of the table. `label` is a grid's label (see `labels.py`) unless it is an anchor's. `cell`: whose numbers they are."""

    group: str
    label: str
    fields: tuple[Field, ...]
    cell: str = ""


@dataclass
class Notes:
    """Footnotes in order of first use; the same text has one letter."""

    texts: list[str] = field(default_factory=list)

    def letter(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        rounds, letter = divmod(self.texts.index(text), 26)
        return chr(ord("a") + letter) * (rounds + 1)

    def lettered(self) -> list[tuple[str, str]]:
        return [(self.letter(text), text) for text in self.texts]


@dataclass(frozen=True)
class ResultsTable:
    """`heads` begin with the measured columns; the last `published` of them are the source's.

    `setting` says what was measured and what published; `verdict` why the two are not comparable, and is empty where they
    are; `remarks` hold for the whole table. Those of a compact table say what its entries mean and no more.
    """

    title: str
    setting: str
    verdict: str
    labels_are: str  # heads the labels
    columns: tuple[str, ...]  # a metric's key, or what the heading says
    heads: tuple[Field, ...]
    published: int
    lines: tuple[Line, ...]
    anchors: tuple[Line, ...]
    notes: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    compact: bool = False


def make_table(summary: Summary, compact: bool = False) -> ResultsTable:
    """The table of one selection of checkpoints: all metrics, or a compact one that a page of text has room for.

    The compact one has score, distance and test bound beside the published ones, and no anchors.
    """
    notes, grid = Notes(), summary.grid
    keys = [key for key in measured_keys(summary) if key in COMPACT or not compact]
    columns = COMPACT_SOURCES if compact else SOURCES
    sources = [column for column in columns if any(column.stands_in(row.published) for row in grid.rows)]
    own = _metric_heads(summary, keys, notes, compact)
    counts = not (compact and common_count(summary))
    if counts:
        own.append(Field("n"))
    if summary.selection == "best":
        own.append(Field("step"))
    heads = [*own, *_source_heads(summary, sources, notes)]
    measured = {row.cell.name: row for row in summary.rows}
    best = {key: best_cells(key, summary.rows) for key in keys}
    lines = []
    for row in grid.rows:
        fields = [Field(EMPTY)] * len(own)
        if isinstance(row, Cell):
            found = measured[row.name]
            fields = measured_fields(found, keys, notes, best)[: len(keys) + counts]
            if summary.selection == "best":
                fields.append(Field(", ".join(f"{step:,}" for step in sorted(set(found.steps)))))
        entries = (*fields, *_source(row.published, sources, notes, grid.blanks))
        lines.append(Line(row.group, row.label, entries, row.name if isinstance(row, Cell) else ""))
    anchors = {} if compact else summary.anchors
    said = [bold_in_words(keys, summary.rows), *meanings(summary, keys)]
    return ResultsTable(
        title=title(summary),
        setting=setting(summary, bounds=any(METRICS[key].is_bound for key in keys)),
        verdict=verdict(summary) if sources else "",
        labels_are=grid.labels_are,
        columns=(*keys, *(head.text for head in heads[len(keys) :])),
        heads=tuple(heads),
        published=len(sources),
        lines=tuple(lines),
        anchors=tuple(_anchor(name, estimates, keys, len(heads)) for name, estimates in anchors.items()),
        notes=tuple(notes.lettered()),
        remarks=tuple(said if compact else said + background(summary, keys)),
        compact=compact,
    )


def _metric_heads(summary: Summary, keys: Sequence[str], notes: Notes, compact: bool) -> list[Field]:
    weights = "" if summary.first.extractor.verified else notes.letter(unverified(summary.first))
    heads = []
    for key in keys:
        metric = METRICS[key]
        text = f"{metric.unit}, {metric.split} {metric.arrow}" if metric.is_bound and compact else None
        heads.append(Field(text or heading(key, summary.first), "" if metric.is_bound else weights))
    return heads


def _source_heads(summary: Summary, sources: Sequence[SourceColumn], notes: Notes) -> list[Field]:
    spread = any(row.published.is_std is not None for row in summary.grid.rows)
    return [Field(column.heading, notes.letter(SPLITS) if column is IS and spread else "") for column in sources]


def grouped(lines: Iterable[Line]) -> Iterator[tuple[str, list[Line]]]:
    """The lines by group of the grid, in order."""
    return ((group, list(members)) for group, members in groupby(lines, key=lambda line: line.group))


def measured_keys(summary: Summary) -> list[str]:
    """The metrics that at least one run has; before the first result, the ones that every run gets."""
    found = {key for row in summary.rows for key in row.estimates}
    return [key for key in COLUMNS if key in (found or {SCORE, DISTANCE})]


def heading(key: str, record: Record) -> str:
    """A measured column's heading. Distance and score are named by the record: only Inception's are FID and IS."""
    return METRICS[key].column(record.extractor.labels)


def number(key: str, estimate: Estimate) -> str:
    """`mean ± deviation` over seeds; of one run `value [95% interval within it]`, and never a ±."""
    metric = METRICS[key]
    if estimate.interval:
        return metric.with_interval(estimate.mean, *estimate.interval)
    if estimate.n > 1 and estimate.deviation is not None:
        return metric.with_error(estimate.mean, estimate.deviation)
    return metric.text(estimate.mean)


def measured_fields(
    row: MeasuredCell, keys: Sequence[str], notes: Notes, best: Mapping[str, frozenset[str]]
) -> list[Field]:
    if row.status == "not measured":
        return [Field(NOT_MEASURED), *[Field(EMPTY)] * (len(keys) - 1), Field("0")]
    if row.status == "diverged":
        letter = notes.letter(divergence_note(row))
        return [Field(DASH, letter)] + [Field(DASH)] * (len(keys) - 1) + [_count(row)]
    fields = [replace(_estimate(key, row, notes), bold=row.cell.name in best[key]) for key in keys]
    if row.failed:
        letter, all_failed = notes.letter(failure_note(row)), row.status == "failed"
        fields = [replace(f, note=f.note or letter * (i == 0), failed=all_failed) for i, f in enumerate(fields)]
    if row.status == "partly diverged":
        return [*fields, _count(row, notes.letter(divergence_note(row)))]
    return [*fields, Field(str(len(row.done)))]


def _count(row: MeasuredCell, note: str = "") -> Field:
    done, total = len(row.done), len(row.done) + len(row.diverged)
    return Field(f"{done} of {total}", note, f"{done}/{total}")


def _estimate(key: str, row: MeasuredCell, notes: Notes) -> Field:
    metric = METRICS[key]
    if key not in row.estimates:
        why = "no classes were asked of these samples" if metric.of_classes else "this metric was not measured here"
        return Field(NOT_SCORED, notes.letter(f"{NOT_SCORED}: {why}"))
    estimate = row.estimates[key]
    return Field(number(key, estimate), brief=metric.text(estimate.mean) if metric.neighbours else "")


def _source(published: Published, sources: Sequence[SourceColumn], notes: Notes, blanks: str) -> list[Field]:
    fields: list[Field] = []
    for column in sources:
        if column in (IS, FID) and published.blank:
            # The note stands at the first dash of a row.
            why = "left blank by the source" + (f": “{blanks}”" if blanks else "")
            fields.append(Field(DASH, "" if fields else notes.letter(why)))
        else:
            elsewhere = _elsewhere(column, published)
            note = notes.letter(f"from {elsewhere}") if elsewhere else ""
            fields.append(Field(column.write(published), note, bold=column.number in published.bold))
    return fields


def _elsewhere(column: SourceColumn, published: Published) -> str:
    """Where the source has the number, if that is not the table's own place."""
    if column is NLL_ODE:
        return published.nll_ode_source or ""
    own = column in (NLL, NLL_TEST) and column.stands_in(published) and published.nll_source
    return f"{own} of the source" if own else ""


def _anchor(name: str, estimates: Mapping[str, Estimate], keys: Sequence[str], width: int) -> Line:
    known = [Field(METRICS[key].text(estimates[key].mean) if key in estimates else EMPTY) for key in keys]
    return Line("", name, tuple(known + [Field(EMPTY)] * (width - len(known))))
