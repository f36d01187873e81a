"""The report as one HTML file that needs nothing else: no network and no file beside it; readable without its script.

Words, sections and figures are those of report.md, so that nothing is said or computed twice. Added is what Markdown
cannot do: tables that sort, and every cell unfolded into its scores, settings, curve, samples and command.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from ddpm_bench.report.blocks import Block, Heading, Results
from ddpm_bench.report.pictures import Picture
from ddpm_bench.report.results_table import Line, ResultsTable, grouped
from ddpm_bench.report.sections.cells import CellInFull, cell_in_full
from ddpm_bench.report.summary import MeasuredCell, Summary
from ddpm_bench.report.writers.html import anchor, block_html, environment, inlined, words_html

CELLS = "Cell by cell"


def html_page(
    blocks: Sequence[Block],
    summaries: Sequence[Summary],
    tables: Sequence[ResultsTable],
    pictures: Mapping[str, Picture],
    out: Path,
) -> str:
    """HTML of the whole report.

    blocks: what `sections.page` made of the same summaries, tables and pictures; the pictures that it shows lie in `out`.
    """
    shown = {row.cell.name: row for row in summaries[0].rows if row.done or row.diverged}
    cells = [cell_in_full(summaries[0], row, tables[0], pictures.get(name)) for name, row in shown.items()]
    return _document(blocks, _parts(blocks, out, shown), [_cell(cell, out) for cell in cells], out)


def front_html(blocks: Sequence[Block], out: Path) -> str:
    """HTML of the front page, whose pictures lie in `out`."""
    return _document(blocks, [block_html(block, out) for block in blocks], [], out)


def _document(
    blocks: Sequence[Block], parts: Iterable[Markup], cells: Sequence[Mapping[str, object]], out: Path
) -> str:  # fmt: skip
    """The whole file; `parts` are the blocks as HTML."""
    names = {
        level: [words_html(b.words, out).striptags() for b in blocks if isinstance(b, Heading) and b.level == level]
        for level in (1, 2)
    }
    contents = [*names[2], *([CELLS] if cells else [])]
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    template = environment().get_template("report.html")
    return template.render(
        title=names[1][0],
        contents=[(anchor(name), name) for name in contents],
        parts=parts,
        cells_heading=CELLS,
        cells_anchor=anchor(CELLS),
        cells=cells,
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
    )


def _parts(blocks: Sequence[Block], folder: Path, shown: Mapping[str, MeasuredCell]) -> Iterator[Markup]:
    """Every block; of the results table each line leads to its cell."""
    number = 0
    for block in blocks:
        if isinstance(block, Results):
            number += 1
            lines = _grouped(block.table, shown)
            template = environment().get_template("results_table.html")
            yield Markup(template.render(table=block.table, index=number, groups=lines))
        else:
            yield block_html(block, folder)


def _grouped(table: ResultsTable, shown: Mapping[str, MeasuredCell]) -> list[tuple[str, list[tuple[str, Line]]]]:
    """The lines by group, each with the name of the cell that it leads to, if there is one."""
    return [
        (group, [(line.cell if line.cell in shown else "", line) for line in lines])
        for group, lines in grouped(table.lines)
    ]


def _cell(cell: CellInFull, out: Path) -> dict[str, object]:
    """What the page's template says of one cell."""
    picture = cell.picture
    words = f"Samples of {cell.row.cell.name}, {picture.caption}" if picture else ""
    shown = picture and picture.path and inlined(out, picture.path, words)
    return {"cell": cell, "picture": shown, "caption": picture.caption if picture else ""}


def _asset(name: str) -> Markup:
    return Markup((Path(__file__).parents[1] / "templates" / name).read_text(encoding="utf-8").strip())


def _hash(text: str) -> str:
    """What the page's Content-Security-Policy allows: this very text and no other style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
