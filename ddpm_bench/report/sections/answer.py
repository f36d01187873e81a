"""The answer, before everything else: what was measured, what of the paper's claims holds, what does not or is open."""

from collections.abc import Sequence

from ddpm_bench.report.blocks import Figure, Lead, Symbols, Words, joined
from ddpm_bench.report.claims import SEEDS, Examined, examine_claims
from ddpm_bench.report.summary import Summary, trainings

SAMPLES = "samples"
"""The name of the figure that stands beside the answer."""
STATUSES = {
    "failed": "failed, being no better than no model", "partly diverged": "diverged with some seeds", "diverged": "diverged",
}  # fmt: skip


def answer(summaries: Sequence[Summary], samples: Figure | None) -> Lead:
    """Three sentences beside the samples of the cells; one sentence where the grid has no claims."""
    tested = examine_claims(summaries)
    verdicts = (_holding(tested), _not_holding(tested)) if tested else ()
    return Lead((_measured(summaries[0], summaries[-1].comparable), *verdicts), samples)


def _measured(summary: Summary, comparable: bool) -> str:
    """`comparable`: of the selection of checkpoints that is nearest to the source's."""
    record, statuses = summary.first, [row.status for row in summary.rows]
    settings, data = record.settings, record.data
    total, trained = len(statuses), len(statuses) - statuses.count("not measured")
    counts = sorted({len(row.done) + len(row.diverged) for row in summary.rows} - {0})
    seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    alike = (
        "these are the published conditions"
        if comparable
        else "these are not the published conditions, so the order of cells can be compared and their numbers cannot"
    )
    shared = record.trained_with is not None
    done = f"were measured, {_count(len(trainings(summary.rows)), 'model')} trained" if shared else "were trained"
    said = [
        f"{'All' if trained == total else f'{trained} of'} {total} cells {done} for {settings.training.steps:,} steps of "
        f"{settings.training.batch} images, with {_count(counts[-1], 'seed', seeds)} each ({data.name} at "
        f"{data.shape[1]}x{data.shape[2]}), and scored on {settings.sampling.samples:,} samples a run by the extractor "
        f"“{record.extractor.name}”",
        *(f"{statuses.count(status)} {what}" for status, what in STATUSES.items() if status in statuses),
        alike,
    ]
    return "; ".join(said) + "."


def _holding(tested: Sequence[Examined]) -> Words:
    found = [one for one in tested if one.outcome == "supported"]
    total = _count(len(tested), "claim")
    if not found:
        return f"None of the paper's {total} about their order is shown to hold."
    return f"Of the paper's {total} about their order {len(found)} hold{'s' * (len(found) == 1)}: ", _listed(found), "."


def _not_holding(tested: Sequence[Examined]) -> Words:
    contradicted = [one for one in tested if one.outcome == "contradicted"]
    undecided = [one for one in tested if one.outcome == "undecided"]
    against: Words = (
        (f"{_are(contradicted)} contradicted: ", _listed(contradicted)) if contradicted else "None is contradicted"
    )
    if not undecided:
        return against, ", and none is open."
    why = f", since a verdict takes {SEEDS} seeds in every cell" if all(one.p is None for one in undecided) else ""
    return against, f"; {_are(undecided)} open{why}: ", _listed(undecided), "."


def _listed(found: Sequence[Examined]) -> Words:
    return joined("; ", [("“", Symbols(one.claim.text), "”") for one in found])


def _count(number: int, noun: str, shown: str = "") -> str:
    return f"{shown or number} {noun}{'' if number == 1 else 's'}"


def _are(found: Sequence[Examined]) -> str:
    return f"{len(found)} {'is' if len(found) == 1 else 'are'}"
