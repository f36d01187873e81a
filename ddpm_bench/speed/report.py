"""A result for people: a table at the terminal, Markdown, a figure. No pass or fail: times belong to a machine."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from ddpm_bench.files import make_folder, write_json, write_text
from ddpm_bench.report.blocks import Block, Bullets, Heading, Image, Paragraph, Table
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.timing import in_words
from ddpm_bench.speed.plot import draw
from ddpm_bench.speed.result import WORKS, Phase, Speed, Timing, Together

HEADS = ("Contender", "precision", "images/s", "GFLOP/image", "GFLOP/s", "of conv. peak", "memory", "ours is")
TOGETHER = ("Work", "contender", "processes", "images/s together", "images/s each")


def write(speed: Speed, out: Path) -> None:
    """speed.json, speed.md, speed.png and speed.pdf in the folder `out`."""
    make_folder(out)
    write_json(out / "speed.json", speed.model_dump(mode="json"))
    draw(speed, out / "speed.png")
    write_text(out / "speed.md", to_markdown(page(speed)))


def title(speed: Speed) -> str:
    channels, size, _ = speed.shape
    return f"Speed at preset {speed.preset}: {speed.parameters:,} parameters, {channels} x {size} x {size}"


def fields(row: Timing) -> tuple[str, ...]:
    """The entries under HEADS."""
    name = row.contender + ("" if row.equal_work else " *")
    ratio = "" if row.ours is None else f"{row.ours.median:.2f} [{row.ours.low:.2f}, {row.ours.high:.2f}] times as fast"
    memory = "–" if row.memory is None else f"{row.memory / 2**20:,.0f} MiB"
    return (
        name, row.precision, _number(row.images_per_s), _number(row.flops / 1e9), _number(row.flops_per_s / 1e9),
        f"{row.peak_fraction:.0%}", memory, ratio,
    )  # fmt: skip


def together_fields(row: Together) -> tuple[str, ...]:
    """The entries under TOGETHER."""
    each = row.images_per_s / row.processes
    return row.work, f"{row.contender}, {row.precision}", str(row.processes), _number(row.images_per_s), _number(each)


def notes(speed: Speed) -> Iterator[str]:
    """What has to be read with the numbers."""
    batches = {row.work: row.batch for row in speed.rows}
    told = ", ".join(f"{work} {batch}" for work, batch in batches.items())
    yield f"Medians of {speed.repeats} interleaved rounds on {_device(speed)}, batch: {told}."
    if coverages := [row.ours.coverage for row in speed.rows if row.ours]:
        yield f"In brackets: the interval that holds the true median ratio with a probability of {min(coverages):.0%}."
    for peak in speed.peaks:
        yield (
            f"The machine's own peak in {peak.precision}: {peak.convolution / 1e9:,.0f} GFLOP/s in 3x3 convolutions, "
            f"{peak.matmul / 1e9:,.0f} GFLOP/s in matrix products."
        )
    if any(not row.equal_work for row in speed.rows):
        yield "* Another network, not the same work: the nearest that the package can be configured to."
    for row in speed.rows:
        if row.compile_seconds is not None:
            yield f"{row.contender}, {row.work}: {row.compile_seconds:.0f} s to compile, which images/s leave out."
    for package, how in speed.missing.items():
        yield f"{package} is not installed and was not measured: {how}."
    if speed.counted_share is not None:
        share = f"{speed.counted_share:.1%}"
        yield f"Network, loss and optimizer take {share} of the time of training, sampling and bounds in a cell."
    yield from speed.remarks


def page(speed: Speed) -> list[Block]:
    """A page of its own, with the figure beside it."""
    blocks: list[Block] = [Heading(1, title(speed))]
    for work, rows in groupby(speed.rows, key=lambda row: row.work):
        align = "ll" + "r" * (len(HEADS) - 2)
        blocks += [Heading(2, WORKS[work]), Table(WORKS[work], align, HEADS, tuple(map(fields, rows)))]
    if speed.together:
        heading = "Several processes on the device"
        blocks += [Heading(2, heading), Table(heading, "llrrr", TOGETHER, tuple(map(together_fields, speed.together)))]
    if speed.phases:
        parts, heading = speed.parts, "Where the time of a cell goes"
        lines = tuple(
            (phase.name, *(_share(phase, part) for part in parts), in_words(phase.cell_seconds))
            for phase in speed.phases
        )
        heads = ("phase", *parts, "whole phase")
        blocks += [Heading(2, heading), Table(heading, "l" + "r" * (len(parts) + 1), heads, lines)]
    picture = Image(PurePosixPath("speed.png"), "images/s of each contender, and shares of time")
    return [*blocks, Bullets(tuple(notes(speed))), Paragraph(picture)]


class TerminalReport:
    """A rich renderable; nothing in it is read as markup."""

    def __init__(self, speed: Speed) -> None:
        self.speed = speed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        speed, narrow = self.speed, options.max_width < 120
        shown = [i for i, head in enumerate(HEADS) if not (narrow and head in ("GFLOP/image", "GFLOP/s", "memory"))]
        table = RichTable(title=Text(title(speed)), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for i in shown:
            table.add_column(HEADS[i], justify="left" if i < 2 else "right")
        for work, rows in groupby(speed.rows, key=lambda row: row.work):
            table.add_row(Text(WORKS[work], style="bold"))
            for row in rows:
                table.add_row(*(Text(fields(row)[i]) for i in shown))
        yield table
        for each in speed.together:
            work, contender, processes, rate, _ = together_fields(each)
            yield Text(f"{work}, {contender}, {processes} at a time: {rate} images/s together")
        for phase in speed.phases:
            told = ", ".join(f"{part} {_share(phase, part)}" for part in phase.parts)
            yield Text(f"{phase.name} ({in_words(phase.cell_seconds)} a cell): {told}")
        yield from (Text(f"- {note}") for note in notes(speed))


def _share(phase: Phase, part: str) -> str:
    return f"{phase.share(part):.1%}" if part in phase.parts else ""


def _number(value: float) -> str:
    """Three digits, or all of a whole number of more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _device(speed: Speed) -> str:
    facts = speed.hardware
    return facts["gpu"] if "gpu" in facts else f"{facts['processor']}, {facts['threads']} of {facts['cores']} cores"
