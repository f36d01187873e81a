"""Would `nox -s reproduce` notice? Three classic faults, planted one at a time into a finished run, and compared as it compares.

    python tests/planted_faults.py reproduced/table2-quick results/table2-quick --out reports/table2-quick

takes the checkpoints of a finished run (its folder `work`), samples and scores some of its cells again with the fault, puts
these numbers in the place of the run's own, and writes what the comparison says to planted-faults.md. The numbers are kept in
planted-faults.json and not measured again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from torch import Tensor

from ddpm_bench.cli.options import CACHE
from ddpm_bench.data import load_data
from ddpm_bench.diffusion.reverse import Diffusion, Network, ReverseStep
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.files import write_json, write_text
from ddpm_bench.measurement.measure import Task, measure
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.models.model import load_model
from ddpm_bench.records.compare import Check, compare
from ddpm_bench.records.record import Checkpoint, Record, read_records
from ddpm_bench.report.blocks import Code, Heading, Paragraph, Table
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.observer import about, say
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.runtime.terminal import at_the_terminal


@dataclass(frozen=True)
class ClippedAfterTheMean(Diffusion):
    """The mean of x_{t-1} is clipped to [-1, 1] where x_0 should have been, before the mean was taken from it."""

    def reverse(self, network: Network, x_t: Tensor, t: Tensor, clip_x0: bool) -> ReverseStep:
        step = super().reverse(network, x_t, t, clip_x0=False)
        return ReverseStep(step.mean.clamp(-1, 1), step.log_variance, step.x0, step.output)


class StandardDeviationForVariance(FixedBeta):
    """sqrt(beta_t) where beta_t should be: a forgotten square."""

    def log_variance(self, *arguments: object) -> Tensor:
        return 0.5 * super().log_variance(*arguments)


@dataclass(frozen=True)
class Fault:
    """A change of the diffusion or of which weights are taken, and the cells that it is planted into (`()` for all)."""

    plant: Callable[[Diffusion], Diffusion] = lambda diffusion: diffusion
    weights: str = "ema"
    cells: tuple[str, ...] = ("mu-L-fixed", "eps-L-fixed", "eps-mse-fixed")


FAULTS = {
    "no EMA": Fault(weights="raw", cells=()),
    "wrong variance": Fault(lambda d: Diffusion(d.schedule, d.parameterization, StandardDeviationForVariance())),
    "clipped after the mean": Fault(lambda d: ClippedAfterTheMean(d.schedule, d.parameterization, d.variance)),
}


def metrics_with(fault: str, record: Record, work: Path, cache: Path) -> dict[str, float]:
    """What the code with the fault would have measured, from the same training."""
    settings = record.settings
    model = load_model(work / f"{record.cell}-seed{record.seed}", raw=FAULTS[fault].weights == "raw")
    faulty_model = replace(model, diffusion=FAULTS[fault].plant(model.diffusion))
    extractor = load_extractor(settings.scoring.extractor, size=settings.data.size, cache=cache)
    numbers = {"test_reference": False, "precision_recall": True, "bootstrap": 0, "neighbours": 0, "terms_images": 0}
    scoring = settings.scoring.model_copy(update=numbers)
    task = Task(load_data(settings.data), extractor, settings.sampling, scoring, record.seed, bound_splits=("test",))
    # Nothing is kept: work is found by what a model is, and a fault is no part of that.
    with TemporaryDirectory() as folder, about(f"{fault}, {record.cell}"):
        return measure(faulty_model, task, Runtime(cache=cache), Path(folder) / "faulty.json").metrics


def faulty(record: Record, of_fault: dict[str, dict[str, float]]) -> Record:
    """The record, with the fault's metrics where its cell has any."""
    if record.cell not in of_fault:
        return record
    return record.model_copy(
        update={"checkpoints": (Checkpoint(step=record.last.step, metrics=of_fault[record.cell]),)}
    )


def report(found: dict[str, list[Check]]) -> str:
    """What the comparison said of each fault, in Markdown."""
    which = " would say of three classic faults in sampling and scoring (the training is right)."
    told = ("What ", Code("nox -s reproduce"), which)
    heads = ("fault", "planted into", "checks that fail", "the clearest of them", "measured", "reference", "t (limit)")
    lines = tuple((fault, *_clearest(checks, FAULTS[fault])) for fault, checks in found.items())
    return to_markdown(
        [Heading(1, "Planted faults"), Paragraph(told), Table("Planted faults", "llrlrrr", heads, lines)]
    )


def _clearest(checks: list[Check], fault: Fault) -> tuple[str | None, ...]:
    """Where a fault was planted, how many checks fail, and the one that fails by most."""
    failed = [check for check in checks if not check.passed]
    where = (", ".join(fault.cells) or "all cells", f"{len(failed)} of {len(checks)}")
    if not failed:
        return (*where, "not noticed", None, None, None)
    one = max(failed, key=lambda check: abs(check.t or 0))
    numbers = f"{one.measured:.3f}", f"{one.expected:.3f}", f"{one.t:.1f} ({one.limit:.1f})"
    return (*where, f"{one.cell}, {one.metric}", *numbers)


def main(
    run: Annotated[Path, typer.Argument(help="A finished run with its folder `work`.")],
    reference: Annotated[Path, typer.Argument(help="The committed records.")],
    out: Annotated[Path, typer.Option(help="Folder for planted-faults.json and .md.")],
    seed: Annotated[int, typer.Option(help="The run's seed to plant the faults into.")] = 0,
    cache: Annotated[Path, typer.Option(help="Folder for reference features.")] = CACHE,
) -> None:
    """Plant each fault and compare; exit code 1 if one goes unnoticed."""
    records = [record for record in read_records(run) if record.seed == seed]
    committed, kept = read_records(reference), out / "planted-faults.json"
    measured = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    found = {}
    for fault, planted in FAULTS.items():
        of_fault = measured.setdefault(fault, {})
        for record in records:
            if record.cell in (planted.cells or (record.cell,)) and record.cell not in of_fault:
                of_fault[record.cell] = metrics_with(fault, record, run / "work", cache)
                write_json(kept, measured)
        found[fault] = compare([faulty(record, of_fault) for record in records], committed)
        say(f"{fault}: {sum(not check.passed for check in found[fault])} of {len(found[fault])} checks fail")
    write_text(out / "planted-faults.md", report(found))
    raise typer.Exit(int(any(all(check.passed for check in checks) for checks in found.values())))


if __name__ == "__main__":
    with at_the_terminal():
        typer.run(main)
