"""When a run has failed: it trained to the end, but what came of it is no better than no model.

The rule was fixed before any training that it is applied to. A run has failed when

1. the 95% interval of its samples' distance to the training set lies above the distance of uniform noise, scored the same
   way (the interval is that of a bootstrap over the samples; without one the distance itself is held against noise),
2. or a bound of it is above 8 bits/dim, which coding every pixel without a model takes.

Its numbers are shown like all others, and marked. A run without finite numbers has diverged instead
(`training/divergence.py`).
"""

from ddpm_bench.config.metrics import BOUNDS, DISTANCE, METRICS
from ddpm_bench.records.record import Record

NOISE = "uniform noise"
"""The anchor by this name."""
UNIFORM_BITS_PER_DIM = 8.0
"""Code length of a uniformly distributed byte."""


def why_failed(record: Record) -> str:
    """Why the run has failed, in words; empty where it has not, or has diverged."""
    if record.outcome == "diverged" or record.last is None:
        return ""
    reasons = [reason for reason in (_distance(record), *_bounds(record)) if reason]
    return "; ".join(reasons)


def _distance(record: Record) -> str:
    found, noise = record.final, record.anchors.get(NOISE, {}).get(DISTANCE)
    if noise is None:
        return ""
    metric, value = METRICS[DISTANCE], found.metrics[DISTANCE]
    ends = found.quantiles.get(DISTANCE)
    if (ends[0] if ends else value) <= noise:
        return ""
    said = metric.with_interval(value, ends[0], ends[-1]) if ends else metric.text(value)
    return f"its {record.extractor.labels[0]} of {said} lies above that of uniform noise, {metric.text(noise)}"


def _bounds(record: Record) -> list[str]:
    metrics = record.final.metrics
    over = {split: metrics[key] for split, key in BOUNDS.items() if metrics.get(key, 0.0) > UNIFORM_BITS_PER_DIM}
    if not over:
        return []
    said = " and ".join(f"{bound:.2f} ({split})" for split, bound in over.items())
    return [f"its bound of {said} bits/dim is above the 8 that coding pixels without a model takes"]
