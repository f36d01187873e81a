"""How a cell looks: one colour, mark and line in every figure of every preset, by its place in its grid.

Colours are Okabe and Ito's, which the colour-blind can tell apart; marks and lines differ in shape as well. Black is left
to what was published or given, grey to the anchors, squares to published values and crosses to runs that diverged.
"""

from dataclasses import dataclass

from ddpm_bench.config.grid import Cell, Grid

BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
COLOURS = (BLUE, SKY, GREEN, PURPLE, ORANGE, VERMILLION)
MARKS = ("o", "^", "D", "v", "P", "*", "p")
"""One more than colours, so that a seventh cell has the first's colour and another mark."""
LINES = ("-", (0, (4, 1)), (0, (6, 1, 1, 1)), (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), "-")


@dataclass(frozen=True)
class CellStyle:
    """As matplotlib takes it. `size`: of the mark in points, such that all marks look equally large."""

    colour: str
    mark: str
    line: str | tuple[int, tuple[int, ...]]

    @property
    def size(self) -> float:
        return {"*": 8.5, "D": 4.5, "P": 6.0}.get(self.mark, 5.5)


def style_at(place: int) -> CellStyle:
    """Of the cell at this place of its grid, counted from 0."""
    return CellStyle(COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)], LINES[place % len(LINES)])


def style_of(cell: Cell, grid: Grid) -> CellStyle:
    return style_at([one.name for one in grid.cells].index(cell.name))
