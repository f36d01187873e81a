"""What the plots share: style, saving, and colours from Okabe and Ito's set; marks differ in shape as well."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ddpm_bench.files import replacing

BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
PURPLE, SKY, ORANGE = "#CC79A7", "#56B4E9", "#E69F00"
STYLE = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8, "xtick.labelsize": 8,
    "ytick.labelsize": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "grid.color": "#E3E3E3", "grid.linewidth": 0.8, "savefig.dpi": 200,
}  # fmt: skip


@contextmanager
def drawn(path: Path, width: float, height: float, pdf: bool = False) -> Iterator[Figure]:
    """A figure of this size in inches, saved to `path` as PNG at the end, whatever the user's own matplotlib style.

    `pdf`: also beside it, as PDF.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
        if pdf:
            with replacing(path.with_suffix(".pdf")) as temporary:
                figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})


def plain_log(axis: Axis) -> None:
    """Ticks 1, 2, 5, 10, 20, ... in plain figures on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
