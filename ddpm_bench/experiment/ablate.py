"""A grid from start to finish: resolve the cells, check what is there, run what is missing, keep going after a failure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddpm_bench.config.grid import Cell, Grid
from ddpm_bench.config.preset import Preset, load_preset, parse_set, resolve
from ddpm_bench.config.settings import CellSettings
from ddpm_bench.data.codec import check_clipping
from ddpm_bench.data.images import ImageData
from ddpm_bench.data.labels import check_labels
from ddpm_bench.diffusion.spacing import visited
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.autoencoders import with_given_autoencoder
from ddpm_bench.experiment.cost import longest_first
from ddpm_bench.experiment.job import Bench, Job, training_identity
from ddpm_bench.experiment.launchers import Launcher
from ddpm_bench.experiment.live_table import board
from ddpm_bench.files import move_aside
from ddpm_bench.likelihood.bound import check_bounded
from ddpm_bench.likelihood.ode import check_likelihood
from ddpm_bench.measurement.measure import data_info
from ddpm_bench.metrics.extractors import Extractor
from ddpm_bench.models.build import build_codec, build_diffusion, build_objective
from ddpm_bench.models.build_sampling import build_sampler, sampling_remarks, strided_steps
from ddpm_bench.records.differences import differences
from ddpm_bench.records.failure import why_failed
from ddpm_bench.records.fields import networks_in
from ddpm_bench.records.record import PICTURES, RECORDS, Record, picture_path, record_path, write_record
from ddpm_bench.runtime.device import cpu_threads
from ddpm_bench.runtime.observer import say, say_once
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.trainer import check_batch


@dataclass(frozen=True)
class Outcome:
    """What a grid came to: the records, in the order of the jobs, and the names of the jobs that failed."""

    records: list[Record]
    failed: list[str]


def plan(
    grid: Grid, preset: str, cells: Sequence[str] | None, seeds: Sequence[int], assignments: Sequence[str]
) -> list[Job]:
    """Every cell and seed, resolved; whatever is wrong with one is a UserError before anything is run.

    Seeds are the outer order, so that a table is complete as early as possible.
    """
    size, overrides = load_preset(preset), parse_set(assignments)
    chosen = chosen_cells(grid, size, cells)
    settings = {cell.name: with_given_autoencoder(resolve(cell, size, overrides)) for cell in chosen}
    for each in settings.values():
        for one in (*each.stages, each):
            build_objective(one.diffusion)
        for name, value in each.diffusion.unused.items():
            say_once(f"diffusion.{name} = {value:g} is not used by the schedule '{each.diffusion.schedule}'.")
        codec, diffusion = build_codec(each.diffusion), build_diffusion(each.diffusion)
        if each.scoring.bound_images:
            check_bounded(diffusion.schedule, codec)
        if each.scoring.ode_images:
            check_likelihood(diffusion, codec)
        for one in (*each.stages, each):
            _check_sampling(one)
    jobs = [Job(grid.name, size.name, cell, settings[cell.name], seed, grid.axes) for seed in seeds for cell in chosen]
    return [replace(job, shares=_first_alike(job, grid, size, overrides)) for job in jobs]


def chosen_cells(grid: Grid, preset: Preset, cells: Sequence[str] | None) -> list[Cell]:
    """The named cells, or those that the preset does not leave out, which is said."""
    chosen = grid.select(cells, preset.name)
    if len(chosen) < len(grid.cells) and not cells:
        say_once(f"Preset '{preset.name}' leaves out {len(grid.cells) - len(chosen)} of the {len(grid.cells)} cells; "
                 "--cells measures any of them.")  # fmt: skip
    return chosen


def _first_alike(job: Job, grid: Grid, preset: Preset, overrides: dict[str, dict[str, Any]]) -> Job | None:
    """The first of the preset's jobs that are trained as this one, whichever are to run now; None where it is the only one."""
    if not any(axis.startswith(("sampling.", "scoring.")) for axis in grid.axes):
        return None
    alike = [
        replace(job, cell=cell, settings=settings)
        for cell in grid.select(None, preset.name)
        if training_identity(settings := with_given_autoencoder(resolve(cell, preset, overrides)))
        == training_identity(job.settings)
    ]
    return alike[0] if {one.cell.name for one in alike} - {job.cell.name} else None


def _check_sampling(settings: CellSettings) -> None:
    """UserError for samples that cannot be drawn; says what is not plain of those that can."""
    sampling, T = settings.sampling, settings.diffusion.T
    sampler, diffusion = build_sampler(sampling), build_diffusion(settings.diffusion)
    sampler.check(diffusion)
    check_clipping(build_codec(settings.diffusion), sampling.clip_x0)
    if (kept := strided_steps(sampling, T)) and sampling.steps:
        say_once(visited(kept, T, sampling.spacing, sampling.steps))
    for remark in sampling_remarks(sampling, settings.network, diffusion):
        say_once(remark)


def scored_with(extractor: str, jobs: Sequence[Job]) -> list[Job]:
    """The jobs, scored with this extractor."""
    found = []
    for job in jobs:
        scoring = job.settings.scoring.model_copy(update={"extractor": extractor})
        found.append(replace(job, settings=job.settings.model_copy(update={"scoring": scoring})))
    return found


def check_results(
    results: Path, jobs: Sequence[Job], data: ImageData, extractor: Extractor, runtime: Runtime
) -> dict[str, Record]:
    """The jobs that `results` already holds, by job name. Records of another configuration there are refused."""
    held: dict[str, Record] = {}
    for job in {job.cell.name: job for job in jobs}.values():
        paths = [path for path in RECORDS.paths(results) if path.name.startswith(f"{job.cell.name}-seed")]
        for path, record in {path: record for path in paths if (record := RECORDS.own(path))}.items():
            held[record.name] = record
            was, now = _conditions(record), _wanted(job, data, extractor)
            if lines := differences(was, now):
                raise UserError(
                    f"'{path}' was measured with another configuration:\n"
                    + "\n".join(lines)
                    + "\nUse another folder with --results DIR, or --fresh to set the old records aside and measure again."
                )
    for job in jobs:
        path = record_path(results, job.cell.name, job.seed)
        if job.name not in held and path.exists():
            raise UserError(
                f"'{path}' would be written over. Use another folder with --results DIR, or set it aside with --fresh."
            )
    found = {job.name: held[job.name] for job in jobs if job.name in held}
    _check_precision(results, list(held.values()), runtime, complete=len(found) == len(jobs))
    return found


def _check_precision(results: Path, held: Sequence[Record], runtime: Runtime, complete: bool) -> None:
    """UserError where records of another precision would stand beside new ones, or are not what was asked for."""
    now = str(runtime.arithmetic["precision"])
    for was in {networks_in(record.hardware) for record in held} - {now}:
        if runtime.precision or not complete:
            raise UserError(
                f"'{results}' holds records that were measured in {was}, and networks are to compute in {now} here. Go on with "
                f"--precision {was}, use another folder with --results DIR, or measure them again with --fresh."
            )
        say(f"The records in '{results}' were measured in {was}, and not in {now} as networks compute here by default.")


def _conditions(record: Record) -> dict:
    return record.model_dump(mode="json", include={"settings", "data", "extractor"})


def _wanted(job: Job, data: ImageData, extractor: Extractor) -> dict:
    return {
        "settings": job.settings.model_dump(mode="json"),
        "data": data_info(data).model_dump(mode="json"),
        "extractor": extractor.info.model_dump(mode="json"),
    }


def set_aside(results: Path, jobs: Sequence[Job]) -> None:
    """Move aside what the jobs left in `results`: record, pictures, snapshots and samples."""
    records = {job.name: record_path(results, job.cell.name, job.seed) for job in jobs}
    pictures = [picture_path(record, name) for record in records.values() for name in PICTURES]
    folders = [(Path(job.name), job.trained_in, *(stage.trained_as_stage_in for stage in job.stages)) for job in jobs]
    work = dict.fromkeys(results / "work" / of for each in folders for of in each)
    move_aside(results, [*records.values(), *pictures, *work])


def run_jobs(jobs: Sequence[Job], bench: Bench, held: dict[str, Record], launcher: Launcher) -> Outcome:
    """Run what is missing. A cell that fails is reported and the grid goes on; one that diverges is a result.

    A full disk is not a cell's failure: the OSError ends the grid. Raises Interrupted after saving.
    """
    missing = [job for job in jobs if job.name not in held]
    made, failed = {}, []
    for job in missing:
        check_batch(job.settings.training.batch)
        check_labels(job.settings.network.told_classes, bench.data)
        _check_enlarged(job)
    if missing and not launcher.elsewhere:
        with cpu_threads(launcher.threads):  # as in a job, for the same digits
            bench.task(missing[0]).anchors(bench.runtime)  # shared by all; refused, if at all, before anything long
    with board(jobs, bench.extractor.info.labels) as table:
        for job in jobs:
            if record := held.get(job.name):
                table.hold(job.name, record)
                say(f"{job.name}: measured already on {record.created}; --fresh measures it again")
        for job, result in launcher.run(longest_first(missing), bench, table.observer) if missing else ():
            table.settle(job.name, result)
            if isinstance(result, Record):
                bench.fetch_pictures(result)
                write_record(bench.results, result)
                made[job.name], said = result, _summary(result)
            else:
                failed.append(job.name)
                said = f"FAILED: {result}"
            say(f"{job.name}: {said} ({len(made) + len(failed)} of {len(missing)})")
    found = held | made
    return Outcome([found[job.name] for job in jobs if job.name in found], failed)


def _check_enlarged(job: Job) -> None:
    """UserError for a cell whose samples would enlarge images that nothing draws."""
    side = job.settings.network.told_small
    if side is not None and not job.settings.cascade.below:
        raise UserError(
            f"{job.cell.name}: network.small = {side}, and no model draws images of that side. Say in the grid which does, "
            f"settings.cascade.below = [{side}], or train it alone with `ddpm-bench train`."
        )


def _summary(record: Record) -> str:
    if record.divergence:
        return f"diverged at step {record.divergence.step}: {record.divergence.reason}"
    distance, score = record.extractor.labels
    metrics = record.final.metrics
    found = f"{distance} {metrics['fd_train']:z.2f}, {score} {metrics['is_mean']:.2f}"
    bound = metrics.get("bound_test_bits_per_dim")
    found += f", {bound:.2f} bits/dim" if bound is not None else ""
    return f"{found}; failed: {reason}" if (reason := why_failed(record)) else found
