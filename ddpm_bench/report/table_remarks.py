"""The sentences around a table: whose numbers they are, what each ± is over, what a dash means, why not to compare."""

from collections.abc import Sequence

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.records.conditions import Difference
from ddpm_bench.records.failure import why_failed
from ddpm_bench.records.likelihoods import OdeLikelihood
from ddpm_bench.records.protocol import quality_in_words
from ddpm_bench.records.record import Record
from ddpm_bench.report.bounds import bound_remarks
from ddpm_bench.report.summary import MeasuredCell, Summary, in_seeds

DASH, NOT_MEASURED, NOT_SCORED, EMPTY = "–", "not measured", "n/a", ""
SCORES = ("score", "distance")
"""The kinds of metrics that are of samples."""


def title(summary: Summary) -> str:
    """Which grid, which preset, and which checkpoint when a run has several."""
    which = f"{summary.grid.title} ({summary.grid.name}, preset {summary.first.preset})"
    if not any(len(record.checkpoints) > 1 for record in summary.records):
        return which
    return f"{which}: {selection_name(summary)}"


def selection_name(summary: Summary) -> str:
    """Which checkpoints a summary shows."""
    distance = summary.first.extractor.labels[0]
    return "last checkpoint" if summary.selection == "last" else f"checkpoint with the lowest {distance}"


def verdict(summary: Summary) -> str:
    """Why measured and published numbers cannot be compared; empty when all that is checked is as published."""
    of_scores, of_bounds, of_ode = (_union(summary, *kinds) for kinds in (SCORES, ("bound",), ("likelihood",)))
    if not (of_scores or of_bounds or of_ode):
        return ""
    if not of_scores:
        what = "Bounds are" if of_bounds else "The likelihood by the ODE is"
        names = ", ".join(condition_names(list(dict.fromkeys((*of_bounds, *of_ode)))))
        return f"{what} not comparable with the published NLL. Not as published: {names}."
    distance, score = summary.first.extractor.labels
    other = f" {distance} is not FID and {score} is not IS: another network computes the features."
    bounds_are = " The bounds are comparable." if summary.bounds_comparable else ""
    differing = condition_names(of_scores)
    for what, found in (("bound", of_bounds), ("likelihood by the ODE", of_ode)):
        differing += [f"how the {what} was measured"] if set(found) - set(of_scores) else []
    return (
        f"{'Scores are not' if bounds_are else 'Not'} comparable with published numbers."
        f"{'' if distance == 'FID' else other} Not as published: {', '.join(differing)}.{bounds_are}"
    )


def _union(summary: Summary, *kinds: str) -> list[Difference]:
    """What is not as published in any metric of these kinds; each once."""
    of_kinds = [found for key, found in summary.differences.items() if METRICS[key].kind in kinds]
    return list(dict.fromkeys(difference for found in of_kinds for difference in found))


def condition_names(differences: Sequence[Difference]) -> list[str]:
    """What differs; the single settings only by their section."""
    names = [difference.name for difference in differences]
    sections = dict.fromkeys(name.partition(".")[0] for name in names if "." in name)
    return [name for name in names if "." not in name] + [f"settings of {section}" for section in sections]


def divergence_note(row: MeasuredCell) -> str:
    """When and why the seeds of a cell diverged; what several share is said once."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for record in row.diverged:
        found = record.divergence
        when = f"at step {found.step:,}" if found else "at a step that was not recorded"
        seeds.setdefault((when, found.reason if found else "no reason was recorded"), []).append(record.seed)
    said = "; ".join(f"{when} ({in_seeds(which)}): {reason}" for (when, reason), which in seeds.items())
    if not row.done:
        return f"diverged here {said}"
    total = len(row.done) + len(row.diverged)
    return f"{len(row.diverged)} of {total} seeds diverged, {said}; the numbers are over the other {len(row.done)}"


def failure_note(row: MeasuredCell) -> str:
    """Why a cell, or some of its seeds, is no better than no model."""
    seeds: dict[str, list[int]] = {}
    for record in row.failed:
        seeds.setdefault(why_failed(record), []).append(record.seed)
    said = "; ".join(f"{in_seeds(which)}: {reason}" for reason, which in seeds.items())
    return f"failed ({len(row.failed)} of {len(row.done)} runs), {said}"


def unverified(record: Record) -> str:
    """What every table says of weights that are not known to be the right ones."""
    return (
        f"unverified extractor weights ({record.extractor.name}, SHA-256 {record.extractor.sha256[:12]}…): "
        "not known to be the ones that published or shipped numbers rest on"
    )


def setting(summary: Summary, bounds: bool) -> str:
    """What was measured and what published, for a table that stands alone; `bounds`: it has some."""
    record, settings = summary.first, summary.first.settings
    side = "x".join(map(str, record.data.shape[1:]))
    return (
        f"Measured: {record.data.name}, {side} pixels; {_runs(summary)} of {settings.training.steps:,} steps of "
        f"{settings.training.batch} images; {settings.sampling.samples:,} samples a run in {summary.sampling_steps} steps; "
        f"features: {record.extractor.name}{_bounds_of(summary) if bounds else ''}. Published: {summary.grid.origin}."
    )


def _runs(summary: Summary) -> str:
    """n = 3 training runs a cell (seeds 0, 1, 2), or n training runs where cells have different numbers."""
    listed = f"({in_seeds(record.seed for record in summary.records)})"
    count = common_count(summary)
    if not count:
        return f"n training runs {listed}"
    return f"n = {count} training {'run' if count == 1 else 'runs'} a cell {listed}"


def common_count(summary: Summary) -> int:
    """The number of runs of every cell that was measured; 0 where they differ, or some diverged."""
    counts = {len(row.done) for row in summary.rows if row.status != "not measured"}
    return counts.pop() if len(counts) == 1 and not any(row.diverged for row in summary.rows) else 0


def _bounds_of(summary: Summary) -> str:
    found = [bound for row in summary.rows for bound in row.bounds_of("test")]
    if not found:
        return ""
    how = "exact" if found[0].method == "exact" else "estimated"
    return f"; bits/dim: upper bound, {how} on {found[0].images:,} test images"


def meanings(summary: Summary, keys: Sequence[str]) -> list[str]:
    """What the entries mean and what stands beside the numbers; `keys` are the metrics that have a column."""
    counts = {len(row.done) for row in summary.rows if row.done}
    said = [scaled] if (scaled := other_axes(summary)) else []
    if max(counts, default=0) > 1:
        said.append("±: sample standard deviation over n training runs with different seeds.")
    single = [row.estimates[key] for row in summary.rows if len(row.done) == 1 for key in keys if key in row.estimates]
    if any(one.interval for one in single):
        which = "n = 1" if counts == {1} else "Rows with n = 1"
        said.append(
            f"{which}: brackets are 95% intervals within the run, by a bootstrap over its samples or over the bound's "
            "images; they say nothing about another training run."
        )
    statuses = {row.status for row in summary.rows}
    if "diverged" in statuses:
        said.append(f"A measured {DASH} is a cell whose every run diverged here.")
    if "not measured" in statuses:
        said.append(f"{NOT_MEASURED.capitalize()}: there is no record of this cell yet.")
    if summary.grid.others:
        said.append("Rows of other models are quoted from the source, which did not measure them; nor did we.")
    if any(row.published.nll_bound for row in summary.grid.rows):
        said.append("A published ≤ is an upper bound, as every measured bound is.")
    if any(row.published.bold for row in summary.grid.rows):
        said.append("Published numbers are bold where the source has them so.")
    return said


def other_axes(summary: Summary) -> str:
    """Where the preset gives axes other values than the labels say; empty where it does not."""
    preset, found = summary.first.preset, dict[str, dict[str, None]]()
    for cell in summary.grid.cells:
        for axis, here in cell.axes_under(preset).items():
            if here != cell.axes[axis]:
                found.setdefault(axis, {})[f"{_plain(here)} for {_plain(cell.axes[axis])}"] = None
    said = "; ".join(f"{axis} {', '.join(values)}" for axis, values in found.items())
    return f"Labels are the source's. Measured here under preset {preset}: {said}." if said else ""


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else "all" if value is None else str(value)


def ode_in_words(ode: OdeLikelihood) -> str:
    """How a likelihood by the ODE was measured, and what it is not."""
    return (
        f"Bits/dim (ODE): likelihood by the probability flow ODE of {ode.images:,} images in {ode.draws} draws each (RK45, rtol = "
        f"{ode.rtol:g}, atol = {ode.atol:g}, {dequantised_in_words(ode)}, sigma_0 = {ode.sigma_0:g}); no variational bound, and "
        "comparable with none."
    )


def dequantised_in_words(ode: OdeLikelihood) -> str:
    """Over what width pixels were spread."""
    width = "of the model's levels" if ode.dequantisation == "level" else "of Song et al., 2 (level + u) / 256 - 1"
    return f"uniform dequantisation over the width {width}"


def background(summary: Summary, keys: Sequence[str]) -> list[str]:
    """How the numbers were measured, beyond what a table's `setting` says."""
    scoring, labels = summary.first.settings.scoring, summary.first.extractor.labels
    samples = summary.first.settings.sampling.samples
    said = [f"{samples:,} samples a run; fewer samples bias a Fréchet distance upwards."]
    if "precision" in keys:
        said.append(
            f"Precision and recall: the same features ({summary.first.extractor.name}), k = {scoring.neighborhood}."
        )
    said += quality_in_words(
        keys, summary.first.extractor, scoring.density_neighborhood, samples, summary.first.data.train_images
    )
    if "fd_infinity" in keys:
        said.append(
            f"{METRICS['fd_infinity'].heading(labels)}: extrapolated to infinitely many samples (Chong and Forsyth 2020), "
            "which takes the bias of few samples away (3 to 10% too much of it at 4 to 8 samples a feature), not their "
            "scatter."
        )
    if any(record.settings.sampling.guided for record in summary.records):
        said.append(
            "Guidance is classifier-free: its scale sampling.guidance is s = 1 + w, for the w of Ho and Salimans; s = 1 is the "
            "conditional model, and any other takes two network calls a step."
        )
    if ode := next((record.ode for row in summary.rows for record in row.done if record.ode), None):
        said.append(ode_in_words(ode))
    return said + bound_remarks(summary)
