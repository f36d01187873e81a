"""Where the numbers come from: the command, what the runs used, how long they took, and their settings."""

import json
from collections.abc import Callable, Iterable, Sequence

from ddpm_bench.records.record import Record, common_settings
from ddpm_bench.report.blocks import (
    Block,
    CodeBlock,
    Details,
    Heading,
    LineBreak,
    Paragraph,
    Table,
    Words,
    joined,
)
from ddpm_bench.report.repeat_command import command
from ddpm_bench.report.summary import Summary, in_seeds

COMMAND = "This command measures them again"
Fact = tuple[str, Callable[[Record], str]]
FACTS: tuple[Fact, ...] = (
    ("data", lambda r: "; ".join((f"{r.data.name}, SHA-256 {r.data.sha256}", *r.data.notes))),
    (
        "extractor",
        lambda r: "; ".join(filter(None, (f"{r.extractor.name}, SHA-256 {r.extractor.sha256}", r.extractor.input))),
    ),
    ("extractor weights", lambda r: "verified" if r.extractor.verified else "UNVERIFIED"),
    ("git commit", lambda r: r.git_commit or "none (an installed package)"),
    ("trained by git commit", lambda r: ", ".join(r.training_commits) or "not recorded"),
    ("versions", lambda r: ", ".join(f"{name} {version}" for name, version in r.versions.items())),
    ("hardware", lambda r: ", ".join(f"{name}: {value}" for name, value in r.hardware.items())),
)
AUTOENCODER: Fact = (
    "autoencoder",
    lambda r: f"SHA-256 {r.settings.diffusion.autoencoder}" if r.settings.diffusion.autoencoder else "none",
)


def provenance_section(summary: Summary) -> list[Block]:
    records, one = summary.records, summary.first
    common = common_settings(one.settings, one.axes)
    told = [*FACTS, *([AUTOENCODER] if any(record.settings.diffusion.autoencoder for record in records) else [])]
    facts = tuple((name, joined(LineBreak(), _variants(records, fact))) for name, fact in told)
    return [
        Heading(2, "Where the numbers come from"),
        Paragraph(f"{COMMAND}:"),
        CodeBlock("sh", command(records, summary.grid)),
        Table(COMMAND, "ll", (None, None), facts),
        Details("Outcome and time of every run", (_times(records),)),
        Details("Settings that all cells share", (CodeBlock("json", json.dumps(common, indent=2)),)),
    ]


def _variants(records: Iterable[Record], fact: Callable[[Record], str]) -> list[Words]:
    """What the records say of one thing: usually one value; otherwise each with the runs it is true of."""
    found: dict[str, dict[str, list[int]]] = {}
    for record in records:
        found.setdefault(fact(record), {}).setdefault(record.cell, []).append(record.seed)
    if len(found) == 1:
        return list(found)
    return [
        f"{text} ({'; '.join(f'{cell}, {in_seeds(seeds)}' for cell, seeds in cells.items())})"
        for text, cells in found.items()
    ]


def _times(records: Sequence[Record]) -> Table:
    """Wall time of every run by phase, in seconds."""
    phases = list(dict.fromkeys(phase for record in records for phase in record.wall_time_s))
    heads = (
        "cell", "seed", "outcome", "parameters", "images seen", *(f"{phase}, s" for phase in phases), "total, s",
        "finished (UTC)",
    )  # fmt: skip
    lines = tuple(
        (
            record.cell, str(record.seed), record.outcome, f"{record.parameters:,}", f"{record.images_seen:,}",
            *(f"{record.wall_time_s[phase]:,.1f}" if phase in record.wall_time_s else "" for phase in phases),
            f"{sum(record.wall_time_s.values()):,.1f}", record.created.removesuffix("+00:00"),
        )
        for record in records
    )  # fmt: skip
    return Table(COMMAND, "lrl" + "r" * (len(phases) + 3) + "l", heads, lines)
