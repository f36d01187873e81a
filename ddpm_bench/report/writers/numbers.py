"""The results as numbers, for table.csv (pandas)."""

from collections.abc import Iterator, Sequence
from statistics import fmean

import pandas as pd

from ddpm_bench.config.grid import Cell
from ddpm_bench.config.metrics import BOUNDS
from ddpm_bench.report.labels import csv_value
from ddpm_bench.report.published_verdicts import verdicts
from ddpm_bench.report.summary import MeasuredCell, Summary


def to_frame(tables: Sequence[Summary]) -> pd.DataFrame:
    """One line a row and selection: every metric with its deviation, what was published, and the verdicts.

    The deviation is over seeds; beside a single seed's numbers stands the 95% interval within the run.
    """
    lines = [
        {name: csv_value(value) for name, value in line.items()} for summary in tables for line in _numbers(summary)
    ]
    keys = sorted({key for summary in tables for row in summary.rows for key in row.estimates})
    beside = ("", "_sd_over_seeds", "_low_within_run", "_high_within_run")
    metrics = [name for key in keys for suffix in beside if any((name := f"{key}{suffix}") in line for line in lines)]
    longest_first = sorted(lines, key=len, reverse=True)
    fixed = [name for name in dict.fromkeys(name for line in longest_first for name in line) if name not in metrics]
    return pd.DataFrame(lines).reindex(columns=fixed + metrics)


def _numbers(summary: Summary) -> Iterator[dict[str, object]]:
    measured = {row.cell.name: row for row in summary.rows}
    for row in summary.grid.rows:
        published = row.published
        found = measured[row.name] if isinstance(row, Cell) else None
        yield {
            "grid": summary.grid.name,
            "preset": summary.first.preset,
            "cell": row.name if isinstance(row, Cell) else "",
            "group": row.group,
            "label": row.label,
            "checkpoint": summary.selection,
            **(_measured(summary, found) if found else {"status": "quoted"}),
            "published_is_mean": published.is_mean,
            "published_is_std_over_splits": published.is_std,
            "published_fid": published.fid,
            "published_nll_test": published.nll_test,
            "published_nll_train": published.nll_train,
            "published_nll_is_upper_bound": published.nll_bound if published.has_nll else None,
            "published_blank": published.blank,
            **(_metrics(found) if found else {}),
        }


def _measured(summary: Summary, row: MeasuredCell) -> dict[str, object]:
    extractor = summary.first.extractor
    return {
        "steps": " ".join(map(str, row.steps)),
        "status": row.status,
        "n": len(row.done),
        "n_diverged": len(row.diverged),
        "distance": extractor.labels[0],
        "score": extractor.labels[1],
        "extractor_verified": extractor.verified,
        "comparable_with_published": summary.comparable,
        "bounds_comparable_with_published": summary.bounds_comparable,
        **{f"verdict_{one.key}": one.said for one in verdicts(summary) if one.row is row},
    }


def _metrics(row: MeasuredCell) -> dict[str, object]:
    line: dict[str, object] = {}
    for key, estimate in row.estimates.items():
        line[key] = estimate.mean
        line[f"{key}_sd_over_seeds"] = estimate.deviation if estimate.n > 1 else None
        if estimate.interval:
            line[f"{key}_low_within_run"], line[f"{key}_high_within_run"] = estimate.interval
    for split in BOUNDS:
        if bounds := row.bounds_of(split):
            line[f"bound_{split}_images"] = bounds[0].images
            line[f"bound_{split}_method"] = bounds[0].method
            line[f"bound_{split}_standard_error"] = fmean(bound.standard_error for bound in bounds)
    return line
