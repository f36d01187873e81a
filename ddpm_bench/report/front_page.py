"""The front page: one answer over all folders of records, and what every score cost. From records alone.

Compute is counted as parameters x training images seen, which records hold: at one image size a network's arithmetic grows
nearly in proportion to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from ddpm_bench.config.grid import Grid
from ddpm_bench.config.metrics import DISTANCE, SCORE
from ddpm_bench.files import write_text
from ddpm_bench.records.record import RECORDS, Record
from ddpm_bench.report.blocks import (
    Block,
    Bold,
    Bullets,
    Entry,
    Figure,
    Heading,
    Image,
    LineBreak,
    Link,
    Paragraph,
    Symbols,
    Table,
    Words,
    joined,
)
from ddpm_bench.report.bounds import row_name
from ddpm_bench.report.claims import Examined, direction, examine_claims
from ddpm_bench.report.figures.compute import draw_compute
from ddpm_bench.report.figures.drawing import canvas, save
from ddpm_bench.report.results_table import BOUND_TEST, heading, number
from ddpm_bench.report.sections.claims import p_text
from ddpm_bench.report.summary import MeasuredCell, Summary, summaries
from ddpm_bench.report.table_remarks import EMPTY
from ddpm_bench.report.writers.html_page import front_html
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.observer import say

NAME = "index"


@dataclass(frozen=True)
class Reported:
    """A folder of records: its `name`, which is also that of its report, what was measured, and its verdicts."""

    name: str
    summary: Summary
    claims: tuple[Examined, ...]

    @property
    def compute(self) -> int:
        """Of its largest run."""
        return max(map(_compute, self.summary.records))

    def as_json(self) -> dict[str, object]:
        """`p` of the claims are corrected for their number; None where nothing could be tested."""
        first = self.summary.first
        claims = [
            {"claim": one.claim.text, "outcome": one.outcome, "direction": direction(one), "p": one.adjusted}
            for one in self.claims
        ]
        return {
            "name": self.name, "grid": first.grid, "preset": first.preset, "runs": len(self.summary.records),
            "compute": self.compute, "claims": claims,
        }  # fmt: skip


def reported(name: str, records: Sequence[Record], grid: Grid) -> Reported:
    """What the report of these records says; UserError as for `render`."""
    measured = summaries(records, grid)
    return Reported(name, measured[0], tuple(examine_claims(measured)))


def folders_of_records(results: Path) -> list[Path]:
    """The folders in `results` that hold records, in order of name."""
    return (
        sorted(path for path in results.iterdir() if path.is_dir() and RECORDS.paths(path)) if results.is_dir() else []
    )


def write_front_page(found: Sequence[Reported], left_out: Sequence[str], out: Path) -> list[Path]:
    """Write index.md and index.html with their figures into the folder `out`, which holds a report for every name in `found`.

    left_out: what to say of folders that are not in it.
    """
    by_grid: dict[str, list[Reported]] = {}
    for one in sorted(found, key=lambda one: (one.compute, one.name)):
        by_grid.setdefault(one.summary.grid.name, []).append(one)
    pictures = {name: figure for name, same in by_grid.items() if (figure := _figure(name, same, out))}
    blocks = _page(by_grid, pictures, left_out)
    texts = {f"{NAME}.md": to_markdown(blocks), f"{NAME}.html": front_html(blocks, out)}
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def _figure(name: str, same: Sequence[Reported], out: Path) -> Figure | None:
    """Nothing, and the reason said, where it cannot be drawn of the numbers."""
    png, title = out / f"{NAME}-{name}.png", "Score against compute"
    try:
        with canvas() as figure:
            if caption := draw_compute(figure, [(one.name, one.summary) for one in same]):
                return Figure(title, Image(PurePosixPath(png.name), title), caption, save(figure, png).name)
    except (ValueError, ArithmeticError) as error:  # what matplotlib says of axes without an end
        say(f"Front page: the figure of {name} cannot be drawn of these numbers ({error}).")
    return None


def _page(
    by_grid: Mapping[str, Sequence[Reported]], pictures: Mapping[str, Figure], left_out: Sequence[str]
) -> list[Block]:  # fmt: skip
    blocks: list[Block] = [
        Heading(1, "ddpm-bench: all measurements"),
        Paragraph("Compute is counted as parameters × training images seen, of one training run."),
    ]
    for name, same in sorted(by_grid.items(), key=lambda item: (-len(item[1]), item[0])):
        grid = same[0].summary.grid
        blocks += [Heading(2, f"{name}: {grid.title}"), Paragraph(f"Published: {grid.origin}."), *_claims(same)]
        blocks += [Paragraph(Bold("Reports")), _reports(same)]
        blocks += [pictures[name]] if name in pictures else []
        blocks += [Paragraph(Bold("Every cell with what it cost")), _costs(same)]
    return [*blocks, Heading(2, "Left out"), Bullets(tuple(left_out))] if left_out else blocks


def _claims(same: Sequence[Reported]) -> list[Block]:
    """What holds over all of them, and then what each says; nothing where the grid has no claims."""
    by_claim = list(zip(*(one.claims for one in same), strict=True))
    if not by_claim:
        return []
    title = "The paper's claims"
    presets = [one.summary.first.preset for one in same]
    names = presets if len(set(presets)) == len(presets) else [one.name for one in same]
    heads: tuple[Entry, ...] = ("claim", *map(_report_link, same, names))
    lines: tuple[tuple[Entry, ...], ...] = tuple(
        (Symbols(ones[0].claim.text), *map(_verdict, ones)) for ones in by_claim
    )  # fmt: skip
    said = "Under each verdict: which way the numbers point, and p, corrected for the number of claims."
    return [
        Bullets(tuple(_over_all(by_claim))), Paragraph(said), Table(title, "l" * len(heads), heads, lines)
    ]  # fmt: skip


def _over_all(by_claim: Sequence[Sequence[Examined]]) -> list[Words]:
    """The claims by what the folders make of them together."""
    decided: dict[str, list[Words]] = {
        "Supported wherever it was decided": [], "Contradicted wherever it was decided": [],
        "Supported by some measurements and contradicted by others": [], "Not decided yet": [],
    }  # fmt: skip
    supported, contradicted, mixed, undecided = decided.values()
    for ones in by_claim:
        outcomes = {one.outcome for one in ones} - {"undecided"}
        place = mixed if len(outcomes) > 1 else supported if "supported" in outcomes else contradicted
        (place if outcomes else undecided).append(("“", Symbols(ones[0].claim.text), "”"))
    return [
        (Bold(f"{what} ({len(claims)} of {len(by_claim)})"), ": ", joined("; ", claims))
        for what, claims in decided.items()
        if claims
    ]


def _verdict(one: Examined) -> Words:
    if one.adjusted is None:
        return Bold(one.outcome), LineBreak(), one.deciding.reason
    return Bold(one.outcome), LineBreak(), f"{direction(one)}, p {p_text(one.adjusted)}"


def _reports(same: Sequence[Reported]) -> Table:
    heads = (
        "report", "preset", "data", "cells", "runs", "training", "samples a run", "parameters", "compute",
    )  # fmt: skip
    return Table("Reports", "lllrrlrrr", heads, tuple(map(_about, same)))


def _about(one: Reported) -> tuple[Entry, ...]:
    record, rows = one.summary.first, one.summary.rows
    training, data = record.settings.training, record.data
    measured = sum(row.status != "not measured" for row in rows)
    links = _report_link(one, one.name), " (", Link("Markdown", f"{quote(one.name)}/report.md"), ")"
    return (
        links, record.preset, f"{data.name}, {data.shape[1]}x{data.shape[2]}", f"{measured} of {len(rows)}",
        str(len(one.summary.records)), f"{training.steps:,} steps of {training.batch}", f"{record.samples:,}",
        f"{record.parameters:,}", _short(one.compute),
    )  # fmt: skip


def _report_link(one: Reported, words: str) -> Link:
    return Link(words, f"{quote(one.name)}/report.html")


def _costs(same: Sequence[Reported]) -> Table:
    """A line for every measured cell of every report."""
    first = same[0].summary.first
    alike = all(one.summary.first.extractor.labels == first.extractor.labels for one in same)
    named = [heading(key, first) if alike else key for key in (DISTANCE, SCORE)]
    heads = ("report", "cell", "outcome", "runs", "compute", *named, "bound, test, bits/dim ↓")
    lines = tuple(
        _cost(one.name, row) for one in same for row in one.summary.rows if row.status != "not measured"
    )  # fmt: skip
    return Table("Every cell with what it cost", "lll" + "r" * (len(heads) - 3), heads, lines)


def _cost(name: str, row: MeasuredCell) -> tuple[Entry, ...]:
    runs = (*row.done, *row.diverged)
    scores = [
        number(key, row.estimates[key]) if key in row.estimates else EMPTY for key in (DISTANCE, SCORE, BOUND_TEST)
    ]
    compute = _short(max(map(_compute, runs)))
    return name, Symbols(row_name(row)), row.status, str(len(runs)), compute, *scores


def _compute(record: Record) -> int:
    return record.parameters * record.images_seen


def _short(compute: int) -> str:
    """1.06e10"""
    return f"{compute:.2e}".replace("e+", "e").replace("e0", "e")
