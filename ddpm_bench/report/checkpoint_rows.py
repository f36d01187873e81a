"""Checkpoints that are no cells, the rows of `evaluate --ckpt`: what is said of each, in tables and as numbers.

Rows measured in different ways share no table.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ddpm_bench.config.metrics import BOUNDS, LIKELIHOOD, METRICS
from ddpm_bench.files import write_text
from ddpm_bench.models.model_card import KINDS
from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.records.protocol import few_images, has_score, images_needed, in_words, protocol, quality_in_words
from ddpm_bench.records.row import ROWS, Row
from ddpm_bench.report.blocks import Block, Bullets, Heading, Table
from ddpm_bench.report.labels import csv_value
from ddpm_bench.report.table_remarks import EMPTY, NOT_MEASURED, NOT_SCORED, ode_in_words
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.observer import say

FOLDER = "checkpoints"
"""Where the rows lie in a results folder."""
SCORES = tuple(key for key, metric in METRICS.items() if metric.kind in ("score", "distance") and key != "fd_infinity")
"""The columns of a table of rows, before those of the bounds; the error of a score within the run has its own."""
ABOUT = ("checkpoint", "weights", "parameters", "predicts", "chain")
ORIGIN = ("checkpoint", "bound", "SHA-256 of the weights", "seed", "device", "measured", "commit", "versions")


@dataclass(frozen=True)
class RowsTable:
    """Plain text: `lines` and `anchors` as long as `heads`, `origins` as long as ORIGIN; the first field is a name."""

    title: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    anchors: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]
    origins: tuple[tuple[str, ...], ...]

    @property
    def blocks(self) -> list[Block]:
        """Heading, table with its anchors, remarks, and where the numbers came from."""
        align = "l" + "r" * (len(self.heads) - 1)
        return [
            Heading(2, self.title),
            Table(self.title, align, self.heads, (*self.lines, *self.anchors)),
            Bullets(self.remarks),
            Table("Where the numbers came from", "l" * len(ORIGIN), ORIGIN, self.origins),
        ]


def rows_beside(results: Path) -> list[Row]:
    """The rows in the results folder, in order of name. A file there that is none is said and left out."""
    return list(ROWS.all(results / FOLDER, lambda error: say(f"Left out of the report: {error}")).values())


def make_tables(rows: Sequence[Row]) -> list[RowsTable]:
    """One table for each set of conditions, rows in order of name."""

    def conditions(row: Row) -> str:
        return repr(row.setup.conditions)

    ordered = sorted(rows, key=lambda row: (conditions(row), row.name))
    return [_table(list(members)) for _, members in groupby(ordered, key=conditions)]


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """Write table.md and table.csv."""
    write_text(folder / "table.md", to_markdown([block for table in make_tables(rows) for block in table.blocks]))
    write_text(folder / "table.csv", to_csv(rows))


def to_csv(rows: Sequence[Row]) -> str:
    """One line a row with everything that is a number or a word, one column each."""
    lines = [{name: csv_value(value) for name, value in _flat(row).items()} for row in rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


# ---- what is said of a row ------------------------------------------------------------------------------------------


def score_of(row: Row, key: str) -> str:
    return METRICS[key].text(row.metrics[key]) if key in row.metrics else NOT_SCORED


def bound_of(row: Row, split: str) -> str:
    """With its 95% interval for the mean over the data."""
    found = [bound for bound in row.bounds if bound.split == split]
    if not found:
        return NOT_SCORED
    return METRICS[BOUNDS[found[0].split]].with_interval(found[0].total, *found[0].interval)


def likelihood_of(row: Row) -> str:
    """By the ODE, with its 95% interval for the mean over the data."""
    return METRICS[LIKELIHOOD].with_interval(row.ode.total, *row.ode.interval) if row.ode else NOT_SCORED


def how_measured(bounds: Sequence[BoundTerms], exact: str, estimate: str) -> str:
    """What the bounds of a row are of; `exact` and `estimate` say by which calls of the network."""
    images = ", ".join(f"{bound.images:,} {bound.split}" for bound in bounds)
    by = exact if bounds[0].method == "exact" else estimate
    clip = "clipped" if bounds[0].clip_x0 else "not clipped"
    return f"{by}; {images} images; {bounds[0].decoder} decoder, {clip}"


def _about(row: Row) -> tuple[str, ...]:
    setup, model = row.setup, row.setup.model
    chain = f"{setup.sampling_steps} of T = {model.T}{setup.spaced}, {model.schedule}"
    return (
        row.name,
        KINDS[model.weights] + ("" if model.step is None else f", step {model.step:,}"),
        f"{model.parameters:,}",
        f"{model.predicts}, {model.variance}",
        chain + (", clipped" if setup.clip_x0 else ", not clipped"),
    )


def _origin(row: Row) -> tuple[str, ...]:
    device = row.hardware.get("gpu") or row.hardware.get("processor") or row.hardware.get("device", "")
    calls = f"estimate, {row.bounds[0].evals} of T calls an image" if row.bounds else ""
    return (
        row.name,
        how_measured(row.bounds, "exact, every t", calls) if row.bounds else NOT_MEASURED,
        row.setup.model.weights_sha256,
        str(row.setup.seed),
        str(device),
        row.created,
        row.git_commit or "an installed package",
        ", ".join(f"{name} {version}" for name, version in row.versions.items()),
    )


# ---- tables ---------------------------------------------------------------------------------------------------------


def _table(rows: list[Row]) -> RowsTable:
    first = rows[0].setup
    with_errors = [name for key in SCORES for name in (key, METRICS[key].error)]
    scores = [name for name in with_errors if any(name in row.metrics for row in rows)]
    splits = [split for split, key in BOUNDS.items() if any(key in row.metrics for row in rows)]
    by_ode = any(row.ode for row in rows)
    keys = [*scores, *(BOUNDS[split] for split in splits), *([LIKELIHOOD] if by_ode else [])]
    heads = [METRICS[key].column(first.extractor.labels) for key in keys]
    lines = [
        (
            *_about(row),
            *(score_of(row, key) for key in scores),
            *(bound_of(row, split) for split in splits),
            *([likelihood_of(row)] if by_ode else []),
        )
        for row in rows
    ]
    empty = [EMPTY] * (len(ABOUT) - 1)
    anchors = [
        (name, *empty, *(METRICS[key].text(values[key]) if key in values else EMPTY for key in keys))
        for name, values in rows[0].anchors.items()
    ]
    mark = "" if first.extractor.verified else ", UNVERIFIED extractor weights"
    size = "x".join(map(str, first.data.shape[:0:-1]))
    title = (
        f"{first.samples:,} samples against the {first.data.train_images:,} training images of {first.data.name} "
        f"({size}), extractor {first.extractor.name}{mark}"
    )
    remarks = tuple(_remarks(rows, bool(splits)))
    return RowsTable(title, (*ABOUT, *heads), tuple(lines), tuple(anchors), remarks, tuple(map(_origin, rows)))


def _remarks(rows: Sequence[Row], bounds: bool) -> list[str]:
    setup = rows[0].setup
    said = []
    if not setup.extractor.verified or (setup.extractor.name != "inception" and has_score(setup.extractor)):
        said.append("Not comparable with published FID and IS: other features.")
    counts = setup.samples, setup.data.train_images
    if min(counts) >= images_needed(setup.neighborhood):  # a row may come from anywhere
        how = protocol(*counts, setup.neighborhood)
        said += [*few_images(how, *counts, setup.extractor), in_words(how, setup.extractor)]
    found = {key for row in rows for key in row.metrics}
    said += quality_in_words(found, setup.extractor, setup.density_neighborhood, *counts)
    if setup.extractor.input:
        said.append(f"For the extractor: {setup.extractor.input}.")
    errors = {
        METRICS[key].error: METRICS[key] for key in SCORES if any(METRICS[key].error in row.metrics for row in rows)
    }
    over = (
        f"{METRICS[error].heading(setup.extractor.labels)}: {metric.error_over}" for error, metric in errors.items()
    )
    if errors:
        said.append(f"{'; '.join(over)}; that says nothing about another training run.")
    remarks: dict[str, list[str]] = {}
    for row in rows:
        for remark in row.setup.sampling_remarks:
            remarks.setdefault(remark, []).append(row.name)
    said += [f"{', '.join(names)}: {remark}" for remark, names in remarks.items()]
    said += setup.data.notes
    if bounds:
        said.append(
            "Bound: of the whole chain, whatever number of steps was sampled in; in brackets a 95% interval for the mean "
            "over the data."
        )
    of_ode = {row.name: ode_in_words(row.ode) for row in rows if row.ode}
    alike = len(set(of_ode.values())) == 1
    said += dict.fromkeys(words if alike else f"{name}: {words}" for name, words in of_ode.items())
    return said


def _flat(row: Row) -> dict[str, object]:
    setup, model = row.setup, row.setup.model
    line: dict[str, object] = {
        "name": row.name,
        **{name: getattr(model, name) for name in type(model).model_fields if name != "identity"},
        "data": setup.data.name,
        "data_sha256": setup.data.sha256,
        "extractor": setup.extractor.name,
        "extractor_verified": setup.extractor.verified,
        "distance": setup.extractor.labels[0],
        "score": setup.extractor.labels[1],
        **setup.model_dump(
            include={"samples", "seed", "sampler", "sampling_steps", "network_calls", "spacing", "clip_x0"}
        ),
        **{f"sampler_{name}": value for name, value in setup.sampler_options.items()},
        **setup.model_dump(include={"neighborhood", "density_neighborhood", "decoder"}),
        **row.metrics,
    }
    for bound in row.bounds:
        low, high = bound.interval
        line |= {
            f"bound_{bound.split}_{name}": value
            for name, value in {
                "method": bound.method,
                "evals": bound.evals,
                "images": bound.images,
                "low": low,
                "high": high,
            }.items()
        }
    if ode := row.ode:
        low, high = ode.interval
        line |= {"ode_test_images": ode.images, "ode_test_draws": ode.draws, "ode_test_low": low, "ode_test_high": high}
    line |= {"device": row.hardware.get("device"), "git_commit": row.git_commit, "created": row.created}
    return line | {f"version_{name}": version for name, version in row.versions.items()}
