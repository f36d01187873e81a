"""`ddpm-bench reproduce RECORD.json`: one record measured again from what it says itself, and whether it came out.

The same code, versions and machine give the same digits on a CPU. Elsewhere training takes another course, so that the
numbers are those of another run. What they may differ by is, in this order:

    seeds       the spread over seeds of the records beside it, by the test of `compare.py` for one new run of one cell
    quantiles   the record's own bootstrap at 95%: narrower than the truth, since it knows nothing of other runs
    digits      nothing, where the record has neither
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.table import Table

from ddpm_bench.config.grid import Cell
from ddpm_bench.config.metrics import METRICS
from ddpm_bench.data.images import ImageData
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.job import Job
from ddpm_bench.measurement.measure import data_info
from ddpm_bench.metrics.extractors import Extractor
from ddpm_bench.records.compare import TRANSFORMS, limit_of_t, t_values
from ddpm_bench.records.conditions import shared
from ddpm_bench.records.differences import differences
from ddpm_bench.records.record import RECORDS, Record
from ddpm_bench.runtime.observer import say

FREEDOM = 4
"""Degrees of freedom that a spread over seeds needs: with fewer, the test's limit lets nearly everything pass."""

Tolerance = Literal["seeds", "quantiles", "digits"]


@dataclass(frozen=True)
class Finding:
    """One number, or the outcome: what came out, what the record says. `within` is None where it is not judged."""

    name: str
    measured: str
    recorded: str
    allowed: str
    within: bool | None


@dataclass(frozen=True)
class Verdict:
    """`identical`: every score, and the loss at every tick, to the last bit. `others`: what else differs, by line."""

    findings: tuple[Finding, ...]
    tolerance: Tolerance
    identical: bool
    others: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return all(finding.within is not False for finding in self.findings)


# ---- before the run -------------------------------------------------------------------------------------------------


def job_of(record: Record, source: str | None = None, extractor: str | None = None, root: Path | None = None) -> Job:
    """The record's own job. `source`, `root` and `extractor` say where data and extractor lie here, if elsewhere."""
    settings = record.settings
    data = {"root": root} | ({"source": source, "name": record.data.name} if source else {})
    scoring = {"extractor": extractor} if extractor else {}
    settings = settings.model_copy(
        update={"data": settings.data.model_copy(update=data), "scoring": settings.scoring.model_copy(update=scoring)}
    )
    cell = Cell(name=record.cell, label=record.label, published="blank")  # a run asks for no published number
    return Job(record.grid, record.preset, cell, settings, record.seed, record.axes)


def check_same(record: Record, data: ImageData, extractor: Extractor) -> None:
    """UserError when the data or the extractor are not those of the record: another result would mean nothing."""
    pairs = {
        "data are": (record.data, data_info(data), "--data or --data-root"),
        "extractor is": (record.extractor, extractor.info, "--extractor or --inception-weights"),
    }
    for what, (was, now, options) in pairs.items():
        if lines := differences(was.model_dump(mode="json"), now.model_dump(mode="json")):
            raise UserError(
                f"The {what} not what the record of '{record.cell}', seed {record.seed}, rests on:\n" + "\n".join(lines)
                + f"\nName the right ones with {options}."
            )  # fmt: skip


def siblings(path: Path, record: Record) -> list[Record]:
    """The record, and those beside it that were measured alike, whatever their cell and seed."""
    beside = RECORDS.all(path.parent, lambda error: say(f"{error} It is left out."))
    others = (each for each in beside.values() if each.name != record.name)
    return [record, *(each for each in others if not differences(_conditions(each), _conditions(record)))]


def _conditions(record: Record) -> dict:
    """What all cells of a measured grid share."""
    return {"grid": record.grid, **shared(record)}


# ---- after it -------------------------------------------------------------------------------------------------------


def judge(measured: Record, record: Record, beside: Sequence[Record]) -> Verdict:
    """Did `record` come out again? `beside`: it and what was measured alike, see `siblings`."""
    findings = [Finding("outcome", _outcome(measured), _outcome(record), "equal", measured.outcome == record.outcome)]
    tolerance: Tolerance = "digits"
    if measured.outcome == record.outcome == "done":
        limits = _limits_of_seeds(measured, record, beside)
        tolerance = "seeds" if limits else "quantiles" if record.final.quantiles else "digits"
        for key in METRICS:
            if key in measured.final.metrics and key in record.final.metrics:
                findings.append(_finding(key, measured, record, tolerance, limits))
    return Verdict(tuple(findings), tolerance, _identical(measured, record), tuple(_others(measured, record)))


def _outcome(record: Record) -> str:
    return f"diverged at step {record.divergence.step}" if record.divergence else record.outcome


def _finding(
    key: str, measured: Record, record: Record, tolerance: Tolerance, limits: dict[str, tuple[float, float]]
) -> Finding:
    metric = METRICS[key]
    new, old = measured.final.metrics[key], record.final.metrics[key]
    ours, theirs = metric.text(new), metric.text(old)
    heading = metric.heading(record.extractor.labels)
    if new == old or ours == theirs:
        return Finding(heading, ours, theirs, "equal" if new == old else "equal as shown", True)
    if key in limits:
        t, limit = limits[key]
        return Finding(heading, ours, theirs, f"|t| = {abs(t):.1f} of at most {limit:.1f}", abs(t) <= limit)
    if tolerance == "quantiles" and key in record.final.quantiles:
        low, *_, high = record.final.quantiles[key]
        allowed = f"{metric.text(low)} to {metric.text(high)}"
        return Finding(heading, ours, theirs, allowed, low <= new <= high)
    if tolerance == "digits" and key in TRANSFORMS:
        return Finding(heading, ours, theirs, "equal as shown", False)
    return Finding(heading, ours, theirs, "not judged", None)


def _limits_of_seeds(measured: Record, record: Record, beside: Sequence[Record]) -> dict[str, tuple[float, float]]:
    """t of the new run and its limit, by metric; empty where seeds are too few. The spread is pooled over all cells."""
    cells: dict[str, list[Record]] = {record.cell: []}
    for each in beside:
        cells.setdefault(each.cell, []).append(each)
    done = {name: runs for name, runs in cells.items() if runs and all(run.outcome == "done" for run in runs)}
    runs = [run for each in done.values() for run in each]
    freedom = np.array([len(each) - 1.0 for each in done.values()])
    if record.cell not in done or freedom.sum() < FREEDOM:
        return {}
    keys = [key for key in TRANSFORMS if all(key in run.final.metrics for run in (measured, *runs))]
    limit, found = limit_of_t(len(keys), 0, int(freedom.sum())), {}
    for key in keys:
        values = [np.array([TRANSFORMS[key](run.final.metrics[key]) for run in each]) for each in done.values()]
        deviation = np.zeros(len(values))
        deviation[0] = TRANSFORMS[key](measured.final.metrics[key]) - values[0].mean()  # the record's cell is the first
        squares = np.array([((y - y.mean()) ** 2).sum() for y in values])
        t, _ = t_values(deviation, squares, freedom, np.array([1 + 1 / len(y) for y in values]))
        found[key] = (float(t[0]), limit)
    return found


def _identical(measured: Record, record: Record) -> bool:
    def numbers(which: Record) -> tuple:
        scores = [(each.step, {key: each.metrics.get(key) for key in keys}) for each in which.checkpoints]
        return which.outcome, which.divergence, scores, which.training_log

    keys = {key for each in record.checkpoints for key in each.metrics}  # a newer ddpm-bench may measure more

    return numbers(measured) == numbers(record)


def _others(measured: Record, record: Record) -> list[str]:
    """Versions, machine and commit, where they are not the record's."""

    def origin(of: Record) -> dict[str, object]:
        return {"versions": of.versions, "hardware": of.hardware, "commit": of.git_commit}

    return differences(origin(record), origin(measured))


SAID = {
    "seeds": "Tolerance: the spread over seeds of the records beside it, pooled over cells.",
    "quantiles": "Tolerance: the record's own bootstrap at 95%, as there are too few seeds beside it; another run may "
    "fall outside though all is right.",
    "digits": "Tolerance: equal digits, as the record has neither enough seeds beside it nor a bootstrap of its own.",
}


def verdict_table(verdict: Verdict) -> Table:
    """The verdict for the terminal, what failed first."""
    held = "bitwise the same" if verdict.identical else "within tolerance" if verdict.holds else "NOT within tolerance"
    only_equal = all(finding.allowed.startswith("equal") for finding in verdict.findings)
    table = Table(title=f"Measured again: {held}", caption=None if only_equal else SAID[verdict.tolerance])
    for heading in ("", "measured", "record", "allowed", "came out"):
        table.add_column(heading, justify="right" if heading in ("measured", "record") else "left")
    words = {True: "yes", False: "NO", None: ""}
    for finding in sorted(verdict.findings, key=lambda finding: finding.within is not False):
        cells = (finding.name, finding.measured, finding.recorded, finding.allowed, words[finding.within])
        table.add_row(*cells, style="bold red" if finding.within is False else None)
    return table
