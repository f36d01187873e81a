"""The results as numbers: table.csv, flat, for a spreadsheet or pandas, and table.json with every seed's value."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd
from pydantic_core import to_json as json_text

from ddpm_bench.config.grid import Cell
from ddpm_bench.config.metrics import BOUNDS
from ddpm_bench.report.best import best_cells
from ddpm_bench.report.labels import csv_value
from ddpm_bench.report.published_verdicts import verdicts
from ddpm_bench.report.results_table import COLUMNS
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
            **{f"published_{name}": value for name, value in published.beside_fid.items() if value is not None},
            "published_nll_test": published.nll_test,
            "published_nll_train": published.nll_train,
            "published_nll_is_upper_bound": published.nll_bound if published.has_nll else None,
            **({} if published.nll_ode is None else {"published_nll_ode": published.nll_ode}),
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


def to_json(tables: Sequence[Summary]) -> str:
    """One object a selection of checkpoints: rows and anchors; of every metric mean, deviation and the values by seed.

    What is not finite is a string, as in the records.
    """
    return json_text([_as_json(summary) for summary in tables], indent=2, inf_nan_mode="strings").decode() + "\n"


def _as_json(summary: Summary) -> dict[str, Any]:
    return {
        "grid": summary.grid.name,
        "preset": summary.first.preset,
        "checkpoint": summary.selection,
        "distance": summary.first.extractor.labels[0],
        "score": summary.first.extractor.labels[1],
        "extractor_verified": summary.first.extractor.verified,
        "comparable_with_published": summary.comparable,
        "bounds_comparable_with_published": summary.bounds_comparable,
        "rows": _rows_as_json(summary),
        "anchors": {
            name: {key: estimate.mean for key, estimate in estimates.items()}
            for name, estimates in summary.anchors.items()
        },
    }


def _rows_as_json(summary: Summary) -> list[dict[str, Any]]:
    measured = {row.cell.name: row for row in summary.rows}
    best = {key: best_cells(key, summary.rows) for row in summary.rows for key in row.estimates if key in COLUMNS}
    return [
        {
            "group": row.group,
            "label": row.label,
            **(_cell_as_json(measured[row.name], best) if isinstance(row, Cell) else {"status": "quoted"}),
            "published": row.published.model_dump(mode="json", exclude_defaults=True),
        }
        for row in summary.grid.rows
    ]


def _cell_as_json(row: MeasuredCell, best: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    return {
        "cell": row.cell.name,
        "status": row.status,
        "seeds": {
            "done": [record.seed for record in row.done],
            "failed": [record.seed for record in row.failed],
            "diverged": [record.seed for record in row.diverged],
        },
        "steps": {str(seed): checkpoint.step for seed, checkpoint in row.checkpoints.items()},
        "metrics": {
            key: {
                "mean": estimate.mean,
                "sd_over_seeds": estimate.deviation if estimate.n > 1 else None,
                "n": estimate.n,
                "by_seed": {str(seed): value for seed, value in row.values(key).items()},
                "interval_within_run": estimate.interval,
                "best": row.cell.name in best.get(key, ()),
            }
            for key, estimate in row.estimates.items()
        },
    }
