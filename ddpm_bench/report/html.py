"""The page as one HTML file that needs nothing else: no network and no file beside it; readable without its script.

Words, sections and figures are those of report.md, so that nothing is said or computed twice. Added is what Markdown
cannot do: tables that sort, and every cell unfolded into its scores, settings, curve, samples and command.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ddpm_bench.report import labels, unfolded
from ddpm_bench.report.conditions import command
from ddpm_bench.report.from_markdown import anchor, blocks, headings, inline, inlined
from ddpm_bench.report.layouts import ANCHORS, MEASURED_HERE, PUBLISHED, grouped, to_markdown
from ddpm_bench.report.samples import Picture
from ddpm_bench.report.summary import Row, Summary
from ddpm_bench.report.table import Line, Table
from ddpm_bench.report.words import divergence_note

CELLS = "Cell by cell"
DIRECTIONS = {"↑": "higher is better", "↓": "lower is better"}


def html_page(
    markdown: str, summaries: Sequence[Summary], tables: Sequence[Table], pictures: Mapping[str, Picture], out: Path
) -> str:
    """HTML of the whole report.

    markdown: what `page` made of the same summaries, tables and pictures; the pictures that it shows lie in `out`.
    """
    environment = _environment()
    shown = {row.cell.name: row for row in summaries[0].rows if row.done or row.diverged}
    parts = []
    for part in _parts(markdown, tables):
        if isinstance(part, Table):
            lines = _grouped(summaries[0], part, shown)
            parts.append(environment.get_template("table.html").render(table=part, index=len(parts), groups=lines))
        else:
            parts.append(blocks(part, out))
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    return environment.get_template("report.html").render(
        title=summaries[0].grid.title,
        contents=[(anchor(name), name) for name in (*headings(markdown), CELLS)],
        parts=map(Markup, parts),
        cells_heading=CELLS,
        cells_anchor=anchor(CELLS),
        cells=[_unfolded(summaries[0], row, tables[0], pictures.get(name)) for name, row in shown.items()],
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
    )


def _parts(markdown: str, tables: Sequence[Table]) -> Iterator[str | Table]:
    """The page with its main tables apart from the Markdown around them."""
    for table in tables:
        before, _, markdown = markdown.partition(to_markdown(table))
        yield before
        yield table
    yield markdown


def _grouped(summary: Summary, table: Table, shown: Mapping[str, Row]) -> list[tuple[str, list[tuple[str, Line]]]]:
    """The lines by group, each with the name of the cell that it leads to, if there is one."""
    names = iter([name if (name := getattr(row, "name", "")) in shown else "" for row in summary.grid.rows])
    return [(group, [(next(names), line) for line in lines]) for group, lines in grouped(table.lines)]


def _unfolded(summary: Summary, row: Row, table: Table, picture: Picture | None) -> dict[str, object]:
    """What the page's template says of one cell."""
    records = unfolded.records_of(row)
    lines = zip(summary.grid.rows, table.lines, strict=True)
    return {
        "row": row,
        "line": next(line for cell, line in lines if cell is row.cell),
        "heads": table.heads[: len(table.heads) - table.published],
        "divergence": divergence_note(row) if row.diverged else "",
        "command": command(records, summary.grid),
        "scores": unfolded.scores(records),
        "settings": unfolded.settings(records),
        "provenance": unfolded.provenance(records),
        "curve": unfolded.curve(records),
        "picture": picture and picture.path and inlined(picture.path, f"Samples of {row.cell.name}, {picture.caption}"),
        "caption": picture.caption if picture else "",
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ddpm_bench.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "label": lambda text: inline(labels.markdown(text)),
        "plain": labels.plain,
        "arrows": _arrows,
        "unbroken": _unbroken,
    }
    environment.globals |= {"ANCHORS": ANCHORS, "MEASURED_HERE": MEASURED_HERE, "PUBLISHED": PUBLISHED}
    return environment


def _arrows(text: str) -> Markup:
    """A heading whose arrow says what it means."""
    out = escape(text)
    for arrow, words in DIRECTIONS.items():
        out = out.replace(f" {arrow}", Markup('\u00a0<abbr title="{}">{}</abbr>').format(words, arrow))
    return out


def _unbroken(text: str) -> str:
    """A number stays in one line with its ±, an interval with its brackets, `2 of 3`."""
    return re.sub(r" (?=±|of )|(?<=±|≤) |(?<=of) |(?<=,) (?=[^\[\]]*\])", "\u00a0", text)


def _asset(name: str) -> Markup:
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8").strip())


def _hash(text: str) -> str:
    """What the page's Content-Security-Policy allows: this very text and no other style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
