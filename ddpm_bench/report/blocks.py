"""A report as data: blocks from the top down with words in them. The writers render them, each in its own language.

A plain string is text that the reader sees as it stands, whoever typed it: a writer escapes it, always. What is more than
text has a type, so nothing that comes from a file can become markup.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from ddpm_bench.report.results_table import ResultsTable

# ---- words: what stands inside a block ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Symbols:
    """A grid's label, whose symbols become mathematics (see `labels.py`)."""

    label: str


@dataclass(frozen=True)
class Bold:
    words: "Words"


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Subscript:
    text: str


@dataclass(frozen=True)
class LineBreak:
    """Within an entry of a table."""


@dataclass(frozen=True)
class Image:
    """A PNG; `source` is its path from the report's folder. `width` in pixels, where it is not shown as large as it is."""

    source: PurePosixPath
    alternative: str
    width: int | None = None


@dataclass(frozen=True)
class Link:
    """To a file beside the report."""

    words: "Words"
    target: str


Words = str | Symbols | Bold | Code | Subscript | LineBreak | Image | Link | tuple["Words", ...]

# ---- blocks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heading:
    level: Literal[1, 2, 3]
    words: Words


@dataclass(frozen=True)
class Paragraph:
    words: Words


@dataclass(frozen=True)
class Bullets:
    items: tuple[Words, ...]


@dataclass(frozen=True)
class CodeBlock:
    language: str
    text: str


Entry = Words | None
"""None where nothing belongs; an empty text is an entry that happens to be empty."""


@dataclass(frozen=True)
class Table:
    """`heads` and every line have as many entries as `align` has letters, one a column: l, r or c. A column of numbers is r.

    caption: what the table shows, for those who cannot see what stands above it.
    """

    caption: Words
    align: str
    heads: tuple[Entry, ...]
    lines: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True)
class Results:
    """The table that the report is about, with its groups, anchors, footnotes and remarks."""

    table: ResultsTable


@dataclass(frozen=True)
class Figure:
    """A picture with a heading of its own and the same as PDF."""

    title: str
    image: Image
    caption: str
    pdf: str


@dataclass(frozen=True)
class Lead:
    """What a reader sees first: paragraphs, and a picture beside them where there is room."""

    paragraphs: tuple[Words, ...]
    figure: Figure | None


@dataclass(frozen=True)
class Details:
    """Blocks that are folded until a reader opens them."""

    summary: Words
    blocks: "tuple[Block, ...]"
    open: bool = False


Block = Heading | Paragraph | Bullets | CodeBlock | Table | Results | Figure | Lead | Details


def joined(separator: Words, parts: "list[Words] | tuple[Words, ...]") -> Words:
    """The parts with the separator between them."""
    return tuple(word for part in parts for word in (separator, part))[1:]
