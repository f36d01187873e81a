"""How often gradients were clipped in training: where nearly always, the rate of learning is that of the clip."""

from collections.abc import Sequence
from statistics import fmean

from ddpm_bench.records.record import Record


def clipped_share(records: Sequence[Record]) -> float | None:
    """Share of the logged norms, each the mean over the steps of a tick, above `training.clip`; None where there are none,
    and where nothing is clipped."""
    above = [
        point.gradient_norm > limit
        for record in records if (limit := record.settings.training.clip) is not None
        for point in record.training_log
    ]  # fmt: skip
    return fmean(above) if above else None
