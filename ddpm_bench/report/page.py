"""The page, report.md: tables, differences, plots, samples, provenance. It reads well on a code host as it is."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from ddpm_bench.records.record import Record
from ddpm_bench.records.row import Row as EvaluatedRow
from ddpm_bench.report.against import against_section
from ddpm_bench.report.bounds import bounds_section
from ddpm_bench.report.checkpoints import checkpoints_section
from ddpm_bench.report.claims import claims_section
from ddpm_bench.report.conditions import command
from ddpm_bench.report.figures import Figure
from ddpm_bench.report.labels import code_markdown, escape_markdown, markdown
from ddpm_bench.report.layouts import MEASURED_HERE, PUBLISHED, to_markdown
from ddpm_bench.report.quoted import quoted_section
from ddpm_bench.report.samples import Picture
from ddpm_bench.report.summary import Row, Summary
from ddpm_bench.report.table import Table
from ddpm_bench.report.words import selection_name


def page(
    summaries: Sequence[Summary],
    tables: Sequence[Table],
    pictures: Mapping[str, Picture],
    checkpoints: Sequence[EvaluatedRow] = (),
    figures: Sequence[Figure] = (),
) -> str:
    """Markdown of the whole report; `pictures` by name of cell. `figures` lie beside it.

    `checkpoints`: rows of `evaluate --ckpt`, shown in a table of their own.
    """
    parts = [_head(summaries[0]), *_set_aside(summaries[0])]
    for summary, table in zip(summaries, tables, strict=True):
        parts += [f"## Table: {escape_markdown(selection_name(summary))}" if len(summaries) > 1 else "## Table"]
        parts += [to_markdown(table), *against_section(summary)]
    parts += claims_section(summaries)
    parts += checkpoints_section(checkpoints, summaries[0].first)
    parts += bounds_section(summaries[0])
    parts += ["## Plots", *map(_figure, figures)] if figures else []
    parts += ["## Samples", _samples(summaries[0].rows, pictures)]
    parts += quoted_section(summaries[0])
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


def _set_aside(summary: Summary) -> list[str]:
    """What is not in the report, and why."""
    if not summary.set_aside:
        return []
    lines = [f"- {escape_markdown(one.what)}: {escape_markdown(one.why)}" for one in summary.set_aside]
    return [f"**Set aside, and in no number of this report** ({len(lines)})", "\n".join(lines)]


def _figure(figure: Figure) -> str:
    links = f"![{figure.title}]({figure.png.name})\n\n{escape_markdown(figure.caption)} ([PDF]({figure.pdf.name}))"
    return f"### {figure.title}\n\n{links}"


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
        ("trained by git commit", lambda r: ", ".join(r.training_commits) or "not recorded"),
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
