"""Where an axis begins and ends: no cell may press the others together, and a distance is seen from 0."""

import math
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ddpm_bench.config.metrics import METRICS

LOG_FROM = {"distance": 20, "bound": 3}
"""By kind of metric: an axis is logarithmic that spans more than so many times the best cell's value."""


def fit_axis(
    axes: Axes, which: Literal["x", "y"], key: str, cells: Sequence[float], anchors: Sequence[float] = ()
) -> bool:
    """Let the axis span the values of the metric `key`: a distance from 0, a score or bound as they lie.

    Returns whether it is logarithmic. ValueError where there are values of cells and none is finite.
    """
    finite = list(filter(math.isfinite, cells))
    if cells and not finite:
        raise ValueError("no number is finite")
    values = [*finite, *filter(math.isfinite, anchors)]
    if not values:
        return False
    low, high, kind = min(values), max(values), METRICS[key].kind
    limits = axes.set_xlim if which == "x" else axes.set_ylim
    if low > 0 and high > LOG_FROM.get(kind, math.inf) * min(finite or values):
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        limits(low / 1.2, high * 1.2)
        plain_log(axes.xaxis if which == "x" else axes.yaxis)
        return True
    bottom = min(low, 0.0) if kind == "distance" else low
    pad = 0.06 * (high - bottom) or 0.05 * abs(high) or 1.0
    limits(bottom if kind == "distance" else low - pad, high + pad)
    return False


def plain_log(axis: Axis) -> None:
    """Plain figures on a logarithmic axis: 1, 2, 5, 10, ...; over many decades 1, 10, ...; over less than one a few."""
    low, high = sorted(axis.get_view_interval())
    if high < 3 * low:
        axis.set_major_locator(MaxNLocator(4))
    else:
        many = 60 if isinstance(axis, XAxis) else 300  # side by side figures take more room than one above the other
        axis.set_major_locator(LogLocator(subs=(1,) if 0 < many * low < high else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
