"""The page, report.md: tables, differences, plots, samples, provenance. It reads well on a code host without anything else."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from ddpm_bench.report.conditions import Difference, command
from ddpm_bench.report.labels import code_markdown, escape_markdown, markdown
from ddpm_bench.report.layouts import to_markdown
from ddpm_bench.report.samples import Picture
from ddpm_bench.report.summary import Row, Summary
from ddpm_bench.report.table import Table, divergence_note, heading, selection_name
from ddpm_bench.store import Record


def page(summaries: Sequence[Summary], tables: Sequence[Table], pictures: Mapping[str, Picture], figures: Mapping[str, str]) -> str:
    """Markdown of the whole report. `figures`: file name -> what it shows."""
    summary = summaries[-1]
    parts = [_head(summary)]
    for each, table in zip(summaries, tables, strict=True):
        parts += [_section(each, several=len(summaries) > 1), to_markdown(table), _differences(each)]
    parts += ["## Plots", *(f"![{escape_markdown(text)}]({name})\n\n{escape_markdown(text)}" for name, text in figures.items())]
    parts += ["## Samples", _samples(summary, pictures)]
    parts += ["## Where the numbers come from", _provenance(summary)]
    return "\n\n".join(parts) + "\n"


def _head(summary: Summary) -> str:
    grid, record = summary.grid, summary.first
    lines = [
        f"# {escape_markdown(grid.title)}",
        f"Grid {code_markdown(grid.name)}, preset {code_markdown(record.preset)}. Published numbers: {escape_markdown(grid.source)}.",
        f"Data: {escape_markdown(record.data.name)}, {record.data.shape[1]}x{record.data.shape[2]} pixels, "
        f"{record.data.train_images:,} training and {record.data.test_images:,} test images. "
        f"{record.settings.sampling.samples:,} samples a run, {record.sampling_steps:,} sampling steps. "
        f"Distances are to the training set.",
    ]
    return "\n\n".join(lines)
