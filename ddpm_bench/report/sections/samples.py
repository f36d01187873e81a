"""The samples of every cell, group by group."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from ddpm_bench.report.blocks import Block, Bold, Heading, Image, LineBreak, Paragraph, Symbols, Table, Words
from ddpm_bench.report.pictures import Picture
from ddpm_bench.report.summary import MeasuredCell, by_group
from ddpm_bench.report.table_remarks import NOT_MEASURED

TITLE = "Samples"
WIDTH = 264
"""Pixels of a picture on the page."""


def samples_section(rows: Sequence[MeasuredCell], pictures: Mapping[str, Picture]) -> list[Block]:
    """A row of pictures for each group of the grid; reasons stand where pictures are missing."""
    blocks: list[Block] = [
        Heading(2, TITLE),
        Paragraph("The first samples of a run, not selected; the same noise in every cell."),
    ]
    caption: Words = TITLE
    for group, members in by_group(rows).items():
        if group:
            caption = Symbols(group)
            blocks.append(Paragraph(Bold(Symbols(group))))
        heads = tuple(Symbols(row.cell.label) for row in members)
        blocks.append(
            Table(
                caption,
                "c" * len(heads),
                heads,
                (tuple(_picture(row, pictures.get(row.cell.name)) for row in members),),
            )
        )
    return blocks


def _picture(row: MeasuredCell, picture: Picture | None) -> Words:
    if picture is None:
        return NOT_MEASURED
    if picture.path is None:
        return f"no picture: {picture.caption}"
    source = PurePosixPath(picture.path.parent.name, picture.path.name)
    return Image(source, f"samples of {row.cell.name}", WIDTH), LineBreak(), picture.caption
