"""Size and time of models beside those that a source states: parameters, seconds an epoch and an image, and on what machine."""

from collections.abc import Callable, Sequence
from statistics import fmean

from ddpm_bench.config.grid import Cell
from ddpm_bench.records.record import Record
from ddpm_bench.report.blocks import Block, Entry, Heading, Paragraph, Symbols, Table
from ddpm_bench.report.summary import Summary
from ddpm_bench.report.table_remarks import EMPTY

TITLE = "Size and time"
HEADS = ("cell", "", "parameters", "Gflops", "training, s an epoch", "sampling, s an image", "on")


def cost_section(summary: Summary) -> list[Block]:
    """Nothing where the source states neither, and no column without an entry.

    The source's line of a row stands above what was measured of it.
    """
    if not any(row.published.cost for row in summary.grid.rows):
        return []
    measured = {row.cell.name: row.done for row in summary.rows}
    lines: list[tuple[Entry, ...]] = []
    for row in summary.grid.rows:
        label = Symbols(f"{row.group}: {row.label}" if row.group else row.label)
        if cost := row.published.cost:
            lines.append((label, "published", *cost.texts.values()))
        if records := measured[row.name] if isinstance(row, Cell) else ():
            lines.append((label, "measured", *_measured(records)))
    told = [i for i in range(len(HEADS)) if any(line[i] not in ("", EMPTY) for line in lines)]
    record = summary.first
    return [
        Heading(2, TITLE),
        Paragraph(
            "Parameters can be compared. Times cannot: each is of its own machine, network, images and batches. Measured are wall "
            "times of whole runs, means over the seeds, with whatever else the machine did at the time: of training, by passes "
            f"over {record.data.train_images:,} images of {record.data.shape[1]}x{record.data.shape[2]} pixels; of sampling in "
            f"{summary.sampling_steps} steps, by images, {record.samples:,} of which are drawn a run, many at a time."
        ),
        Table(
            TITLE,
            "".join("llrrrrl"[i] for i in told),
            tuple(HEADS[i] for i in told),
            tuple(tuple(line[i] for i in told) for line in lines),
        ),
    ]


def _measured(records: Sequence[Record]) -> tuple[str, ...]:
    return (
        ", ".join(f"{count:,}" for count in sorted({record.parameters for record in records})),
        EMPTY,
        _mean(records, epoch_s),
        _mean(records, image_s),
        "; ".join(dict.fromkeys(map(machine, records))),
    )


def _mean(records: Sequence[Record], seconds: Callable[[Record], float | None]) -> str:
    found = [one for record in records if (one := seconds(record)) is not None]
    return f"{fmean(found):.3g}" if found else EMPTY


def epoch_s(record: Record) -> float | None:
    """Seconds of training for every training image once; None where another cell was trained, or no time was kept."""
    seconds = record.wall_time_s.get("training")
    if record.trained_with or seconds is None or not record.images_seen:
        return None
    return seconds * record.data.train_images / record.images_seen


def image_s(record: Record) -> float | None:
    """Seconds of sampling for one image: the samples of every checkpoint that was scored share the time."""
    seconds = record.wall_time_s.get("sampling")
    images = record.samples * len(record.checkpoints)
    return seconds / images if seconds is not None and images else None


def machine(record: Record) -> str:
    """What the record was measured on."""
    hardware = record.hardware
    if gpu := hardware.get("gpu"):
        return str(gpu)
    threads = hardware.get("threads")
    name = str(hardware.get("processor") or hardware.get("device", ""))
    return f"{name}, {threads} thread{'' if threads == 1 else 's'}" if threads else name
