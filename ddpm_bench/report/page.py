"""The page, report.md: tables, differences, plots, samples, provenance. It reads well on a code host as it is."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from ddpm_bench.evaluation.rows import Row as EvaluatedRow
from ddpm_bench.report.bounds import bounds_section
from ddpm_bench.report.checkpoints import checkpoints_section
from ddpm_bench.report.conditions import command
from ddpm_bench.report.labels import code_markdown, escape_markdown, markdown
from ddpm_bench.report.layouts import MEASURED_HERE, PUBLISHED, to_markdown
from ddpm_bench.report.samples import Picture
from ddpm_bench.report.summary import Row, Summary
from ddpm_bench.report.table import Table
from ddpm_bench.report.words import selection_name
from ddpm_bench.store import Record

PLOTS = {
    "distance.png": (
        "Distance",
        "Rows in the order of the table. Published and measured values share an axis only where they are comparable.",
    ),
    "score.png": ("Score", "Likewise; here the published values have a ± too, over splits of one sample set."),
    "loss.png": (
        "Training loss",
        "Mean over the steps of a tick; every panel has its own scale, since objectives have different units.",
    ),
}


def page(
    summaries: Sequence[Summary],
    tables: Sequence[Table],
    pictures: Mapping[str, Picture],
    checkpoints: Sequence[EvaluatedRow] = (),
) -> str:
    """Markdown of the whole report; `pictures` by name of cell. The plots lie beside it under the names in PLOTS.

    `checkpoints`: rows of `evaluate --ckpt`, shown in a table of their own.
    """
    parts = [_head(summaries[0])]
    for summary, table in zip(summaries, tables, strict=True):
        parts += [f"## Table: {escape_markdown(selection_name(summary))}" if len(summaries) > 1 else "## Table"]
        parts += [to_markdown(table), _differences(summary)]
    parts += checkpoints_section(checkpoints, summaries[0].first)
    parts += bounds_section(summaries[0])
    parts += ["## Plots", *(f"**{name}.** {text}\n\n![{name}]({file})" for file, (name, text) in PLOTS.items())]
    parts += ["## Samples", _samples(summaries[0].rows, pictures)]
    parts += ["## Where the numbers come from", *_provenance(summaries[0])]
    return "\n\n".join(parts) + "\n"


def _head(summary: Summary) -> str:
    grid, record = summary.grid, summary.first
    data, settings, extractor = record.data, record.settings, record.extractor
    weights = "" if extractor.verified else " (unverified weights)"
    measured = (
        f"{data.name}, {data.shape[1]}x{data.shape[2]} pixels, {data.train_images:,} training "
        f"and {data.test_images:,} test images; "
        f"{settings.training.steps:,} training steps of {settings.training.batch} images, "
        f"{settings.sampling.samples:,} samples a run in {record.sampling_steps:,} steps; features: "
        f"{extractor.name}{weights}. Distances are to the training images."
    )
    return "\n\n".join(
        [
            f"# {escape_markdown(grid.title)}",
            f"Grid {code_markdown(grid.name)}, preset {code_markdown(record.preset)}.",
            f"{PUBLISHED}: {escape_markdown(grid.source)}. Rows, order and labels are its own.",
            f"{MEASURED_HERE}: {escape_markdown(measured)}",
        ]
    )


def _differences(summary: Summary) -> str:
    differences = (*summary.differences, *summary.bound_differences)
    if not differences:
        return "Every condition that is checked is as published, so measured and published numbers can be compared."
    lines = [
        f"| {escape_markdown(d.name)} | {escape_markdown(d.published)} | {escape_markdown(d.here)} |"
        for d in differences
    ]
    return "\n".join(
        [
            "**Differences from the published conditions**\n",
            "| condition | published | here |",
            "| --- | --- | --- |",
            *lines,
        ]
    )


def _samples(rows: Sequence[Row], pictures: Mapping[str, Picture]) -> str:
    """A row of pictures for each group of the grid; reasons stand where pictures are missing."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.cell.group, []).append(row)
    parts = ["The first samples of a run, not selected; the same noise in every cell."]
    for group, members in groups.items():
        heads = [markdown(row.cell.label) for row in members]
        cells = [_picture(row, pictures.get(row.cell.name)) for row in members]
        table = [f"| {' | '.join(heads)} |", f"|{' :---: |' * len(heads)}", f"| {' | '.join(cells)} |"]
        parts.append((f"**{markdown(group)}**\n\n" if group else "") + "\n".join(table))
    return "\n\n".join(parts)


def _picture(row: Row, picture: Picture | None) -> str:
    if picture is None:
        return "not measured"
    if picture.path is None:
        return f"no picture: {escape_markdown(picture.caption)}"
    source = f"{picture.path.parent.name}/{picture.path.name}"
    return f'<img src="{source}" alt="samples of {row.cell.name}" width="264"><br>{escape_markdown(picture.caption)}'


def _provenance(summary: Summary) -> list[str]:
    records, first = summary.records, summary.first
    facts = [
        ("data", lambda r: f"{r.data.name}, SHA-256 {r.data.sha256}"),
        ("extractor", lambda r: f"{r.extractor.name}, SHA-256 {r.extractor.sha256}"),
        ("extractor weights", lambda r: "verified" if r.extractor.verified else "UNVERIFIED"),
        ("git commit", lambda r: r.git_commit or "none (an installed package)"),
        ("versions", lambda r: ", ".join(f"{name} {version}" for name, version in r.versions.items())),
        ("hardware", lambda r: ", ".join(f"{name}: {value}" for name, value in r.hardware.items())),
    ]  # fmt: skip
    lines = [f"| {name} | {'<br>'.join(_variants(records, fact))} |" for name, fact in facts]
    settings = json.dumps(
        first.settings.model_dump(mode="json", exclude={"diffusion": {"parameterization", "variance", "objective"}}),
        indent=2,
    )
    return [
        f"This command measures them again:\n\n```sh\n{command(records, summary.grid)}\n```",
        "\n".join(["| | |", "| --- | --- |", *lines]),
        _times(records),
        f"<details><summary>Settings that all cells share</summary>\n\n```json\n{settings}\n```\n\n</details>",
    ]


def _variants(records: Iterable[Record], fact: Callable[[Record], str]) -> list[str]:
    """What the records say of one thing: usually one value; otherwise each with the runs it is true of."""
    found: dict[str, list[str]] = {}
    for record in records:
        found.setdefault(fact(record), []).append(f"{record.cell} {record.seed}")
    if len(found) == 1:
        return [escape_markdown(next(iter(found)))]
    return [f"{escape_markdown(text)} ({escape_markdown(', '.join(runs))})" for text, runs in found.items()]


def _times(records: Sequence[Record]) -> str:
    """Wall time of every run by phase, in seconds."""
    phases = list(dict.fromkeys(phase for record in records for phase in record.wall_time_s))
    head = [
        "cell",
        "seed",
        "outcome",
        "parameters",
        "images seen",
        *(f"{phase}, s" for phase in phases),
        "total, s",
        "finished (UTC)",
    ]
    lines = [
        f"| {' | '.join(map(escape_markdown, head))} |",
        f"| --- | ---: | --- |{' ---: |' * (len(phases) + 3)} --- |",
    ]
    for record in records:
        times = [f"{record.wall_time_s[phase]:,.1f}" if phase in record.wall_time_s else "" for phase in phases]
        fields = [
            record.cell,
            str(record.seed),
            record.outcome,
            f"{record.parameters:,}",
            f"{record.images_seen:,}",
            *times,
        ]
        fields += [f"{sum(record.wall_time_s.values()):,.1f}", record.created.removesuffix("+00:00")]
        lines.append(f"| {' | '.join(map(escape_markdown, fields))} |")
    return "\n".join(lines)
