"""What a figure shows, in a sentence, for those who cannot see it: computed from the numbers that are drawn."""

from collections.abc import Callable, Mapping

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.report.bounds import row_name
from ddpm_bench.report.labels import plain
from ddpm_bench.report.summary import MeasuredCell, Summary


def cell_name(row: MeasuredCell) -> str:
    """Group and label in unicode."""
    return plain(row_name(row))


def ranking(summary: Summary, key: str) -> str:
    """Which cell is best in the metric `key`, and by how much; which is worst; and where the anchors lie."""
    metric = METRICS[key]
    found = [(row.estimates[key].mean, cell_name(row)) for row in summary.rows if key in row.estimates]
    heading = metric.heading(summary.first.extractor.labels)
    if not found:
        return f"No cell has a number for {heading} yet."
    order = [f"{name} {metric.text(value)}" for value, name in sorted(found, reverse=metric.direction == "up")]
    said = f"{heading}, {metric.better}: best {order[0]}"
    if len(order) > 1:
        said += f", then {order[1]}"
    if len(order) > 2:
        said += f", worst {order[-1]}"
    anchors = [f"{name} {metric.text(one[key].mean)}" for name, one in summary.anchors.items() if key in one]
    return said + (f"; {', '.join(anchors)}." if anchors else ".")


def ends(values: Mapping[str, float], text: Callable[[float], str]) -> str:
    """The range of some cells' values, and whose they are: from 1 (this) to 2 (that)."""
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    if low == high:
        return f"{text(values[low])} ({low})"
    return f"from {text(values[low])} ({low}) to {text(values[high])} ({high})"
