"""How often gradients were clipped in training: where nearly always, the rate of learning is that of the clip."""

from collections.abc import Sequence
from statistics import fmean

from ddpm_bench.records.record import Record


def clipped_share(records: Sequence[Record]) -> float | None:
    """Share of the logged norms, each the mean over the steps of a tick, above `training.clip`; None where there are none,
    and where nothing is clipped."""
    limits = [
        (point.gradient_norm, record.settings.training.clip) for record in records for point in record.training_log
    ]
    above = [norm > limit for norm, limit in limits if limit is not None]
    return fmean(above) if above else None
