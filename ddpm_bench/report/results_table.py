"""The table, once, in plain unicode: rows, order and groups of the paper, measured and published numbers side by side.

The writers of Markdown, LaTeX and the terminal only lay it out. What stands in a field is one of four things that are
never confused: a number (marked, where the cell has failed), DASH (diverged, or blank in the source), NOT_MEASURED (nobody
has run it), NOT_SCORED (run, but without this metric). Where a row or a source has nothing to say, as rows of other
models among measured numbers, it is EMPTY.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from ddpm_bench.config.grid import OtherModel
from ddpm_bench.config.metrics import BOUNDS, DISTANCE, METRICS, SCORE
from ddpm_bench.config.published import Published
from ddpm_bench.records.record import Record
from ddpm_bench.report.summary import Estimate, MeasuredCell, Summary
from ddpm_bench.report.table_remarks import (
    DASH,
    EMPTY,
    NOT_MEASURED,
    NOT_SCORED,
    divergence_note,
    failure_note,
    remarks,
    title,
    unverified,
    verdict,
)

BOUND_TEST, BOUND_TRAIN = BOUNDS["test"], BOUNDS["train"]
ANCHORS = "Anchors: known images, scored in the same way"
MEASURED_HERE, PUBLISHED = "Measured here", "Published"
COLUMNS = (SCORE, DISTANCE, "fd_infinity", "fd_test", "kid_mean", "precision", "recall", BOUND_TEST)
"""Metrics of the measured columns, in order; one that no run has gets no column. A bound's holds that of train images, too."""


@dataclass(frozen=True)
class SourceColumn:
    """A column of published numbers."""

    heading: str
    stands_in: Callable[[Published], bool]
    write: Callable[[Published], str]


NLL = SourceColumn("NLL, test (train), bits/dim ↓", lambda p: p.has_nll, lambda p: p.texts["nll"])
SOURCES = (
    SourceColumn("IS ↑", lambda p: p.has_scores, lambda p: p.texts["is"]),
    SourceColumn("FID ↓", lambda p: p.has_scores, lambda p: p.texts["fid"]),
    NLL,
)


@dataclass(frozen=True)
class Field:
    """A heading or an entry: text, the letter of its footnote, and shorter text for where there is little room.

    failed: a number of a cell that is no better than no model, which is greyed where the writing has grey.
    """

    text: str
    note: str = ""
    brief: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Line:
    """A row of the table. `label` is a grid's label (see `labels.py`) unless it is an anchor's."""

    group: str
    label: str
    fields: tuple[Field, ...]


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

    `verdict` says why the two are not comparable, and is empty where they are; `remarks` hold for the whole table.
    """

    title: str
    verdict: str
    columns: tuple[str, ...]  # a metric's key, or what the heading says
    heads: tuple[Field, ...]
    published: int
    lines: tuple[Line, ...]
    anchors: tuple[Line, ...]
    notes: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


def make_table(summary: Summary) -> ResultsTable:
    """The table of one selection of checkpoints."""
    notes = Notes()
    keys = measured_keys(summary)
    weights = "" if summary.first.extractor.verified else notes.letter(unverified(summary.first))
    heads = [Field(heading(key, summary.first), "" if key == BOUND_TEST else weights) for key in keys]
    heads += [Field("n")] + ([Field("step")] if summary.selection == "best" else [])
    sources = [column for column in SOURCES if any(column.stands_in(row.published) for row in summary.grid.rows)]
    measured = {row.cell.name: row for row in summary.rows}
    lines = []
    for row in summary.grid.rows:
        if isinstance(row, OtherModel):
            fields = [Field(EMPTY)] * len(heads)
        else:
            fields = _measured(measured[row.name], keys, notes)
            if summary.selection == "best":
                fields.append(Field(", ".join(f"{step:,}" for step in sorted(set(measured[row.name].steps)))))
        fields += _source(row.published, sources, notes, summary.grid.blanks)
        lines.append(Line(row.group, row.label, tuple(fields)))
    heads += [Field(column.heading) for column in sources]
    return ResultsTable(
        title=title(summary),
        verdict=verdict(summary) if sources else "",
        columns=(*keys, *(head.text for head in heads[len(keys) :])),
        heads=tuple(heads),
        published=len(sources),
        lines=tuple(lines),
        anchors=tuple(_anchor(name, estimates, keys, len(heads)) for name, estimates in summary.anchors.items()),
        notes=tuple(notes.lettered()),
        remarks=tuple(remarks(summary, keys)),
    )


def grouped(lines: Iterable[Line]) -> Iterator[tuple[str, list[Line]]]:
    """The lines by group of the grid, in order."""
    return ((group, list(members)) for group, members in groupby(lines, key=lambda line: line.group))


def measured_keys(summary: Summary) -> list[str]:
    """The metrics that at least one run has; before the first result, the ones that every run gets."""
    found = {key for row in summary.rows for key in row.estimates}
    return [key for key in COLUMNS if key in (found or {SCORE, DISTANCE})]


def heading(key: str, record: Record) -> str:
    """A measured column's heading. Distance and score are named by the record: only Inception's are FID and IS."""
    metric = METRICS[key]
    text = "bound, test (train), bits/dim" if key == BOUND_TEST else metric.heading(record.extractor.labels)
    return f"{text} {metric.arrow}"


def number(key: str, estimate: Estimate) -> str:
    """`mean ± deviation`, or of one run `value [95% interval within it]`, with the metric's digits."""
    text = METRICS[key].text
    if estimate.interval:
        low, high = estimate.interval
        return f"{text(estimate.mean)} [{text(low)}, {text(high)}]"
    beside = "" if estimate.deviation is None else f" ± {text(estimate.deviation)}"
    return f"{text(estimate.mean)}{beside}"


def _measured(row: MeasuredCell, keys: Sequence[str], notes: Notes) -> list[Field]:
    if row.status == "not measured":
        return [Field(NOT_MEASURED), *[Field(EMPTY)] * (len(keys) - 1), Field("0")]
    if row.status == "diverged":
        letter = notes.letter(divergence_note(row))
        return [Field(DASH, letter)] + [Field(DASH)] * (len(keys) - 1) + [_count(row)]
    fields = [_estimate(key, row, notes) for key in keys]
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
    if key not in row.estimates:
        return Field(NOT_SCORED, notes.letter(f"{NOT_SCORED}: this metric was not measured for this checkpoint"))
    estimate = row.estimates[key]
    text, brief = number(key, estimate), METRICS[key].text(estimate.mean)
    if key != BOUND_TEST:
        return Field(text, brief=brief if METRICS[key].of_neighbours else "")
    bounds = [row.estimates[split] for split in (BOUND_TEST, BOUND_TRAIN) if split in row.estimates]
    if len(bounds) == 1:
        return Field(text, brief=brief)
    train = bounds[1]
    return Field(f"{text} ({number(BOUND_TRAIN, train)})", brief=f"{brief} ({METRICS[BOUND_TRAIN].text(train.mean)})")


def _source(published: Published, sources: Sequence[SourceColumn], notes: Notes, blanks: str) -> list[Field]:
    fields: list[Field] = []
    for column in sources:
        if column is not NLL and published.blank:
            # The note stands at the first dash of a row.
            why = "left blank by the source" + (f": “{blanks}”" if blanks else "")
            fields.append(Field(DASH, "" if fields else notes.letter(why)))
        else:
            elsewhere = column is NLL and column.stands_in(published) and published.nll_source
            note = notes.letter(f"from {elsewhere} of the source") if elsewhere else ""
            fields.append(Field(column.write(published), note))
    return fields


def _anchor(name: str, estimates: Mapping[str, Estimate], keys: Sequence[str], width: int) -> Line:
    known = [Field(METRICS[key].text(estimates[key].mean) if key in estimates else EMPTY) for key in keys]
    return Line("", name, tuple(known + [Field(EMPTY)] * (width - len(known))))
