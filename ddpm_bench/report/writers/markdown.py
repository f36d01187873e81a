"""Blocks as Markdown that a code host shows: GitHub's tables, and tags only where Markdown has no sign of its own."""

import html
import re
from collections.abc import Iterable, Sequence
from itertools import chain

from ddpm_bench.report.blocks import (
    Block,
    Bold,
    Bullets,
    Code,
    CodeBlock,
    Details,
    Entry,
    Figure,
    Heading,
    Image,
    Lead,
    LineBreak,
    Link,
    Paragraph,
    Results,
    Subscript,
    Symbols,
    Table,
    Words,
)
from ddpm_bench.report.labels import code_markdown, escape_markdown, markdown
from ddpm_bench.report.results_table import ANCHORS, PUBLISHED, Field, Line, ResultsTable, grouped

RULES = {"l": "---", "r": "---:", "c": ":---:"}


def to_markdown(blocks: Iterable[Block]) -> str:
    """The whole text of a file."""
    return "\n\n".join(map(_block, blocks)) + "\n"


def markdown_table(align: str, heads: Sequence[str | None], lines: Iterable[Sequence[str | None]]) -> str:
    """A table of texts that are Markdown already; `align` as of `blocks.Table`."""
    rule = [RULES[letter] for letter in align]
    return "\n".join("|" + "".join(map(_entry, line)) for line in chain((heads, rule), lines))


def _entry(text: str | None) -> str:
    return " |" if text is None else f" {text} |"


def _block(block: Block) -> str:
    match block:
        case Heading(level, said):
            return f"{'#' * level} {_words(said)}"
        case Paragraph(said):
            return _words(said)
        case Bullets(items):
            return "\n".join(f"- {_words(item)}" for item in items)
        case CodeBlock(language, text):
            fence = _fence(text)
            return f"{fence}{language}\n{text}\n{fence}"
        case Table(_, align, heads, lines):
            return markdown_table(align, _line(heads), map(_line, lines))
        case Results(table):
            return _results(table)
        case Figure(title, image, caption, pdf):
            link = _words(Link("PDF", pdf))
            return f"### {_words(title)}\n\n{_words(image)}\n\n{_words(caption)} ({link})"
        case Lead(paragraphs, figure):
            pictured = (
                [_words(figure.image), _words((figure.caption, " (", Link("PDF", figure.pdf), ")"))] if figure else []
            )
            return "\n\n".join([*map(_words, paragraphs), *pictured])
        case Details(summary, blocks, unfolded):
            inside = "\n\n".join(map(_block, blocks))
            return (
                f"<details{' open' if unfolded else ''}><summary>{_words(summary)}</summary>\n\n{inside}\n\n</details>"
            )


def _line(entries: Iterable[Entry]) -> list[str | None]:
    return [None if entry is None else _words(entry) for entry in entries]


def _words(said: Words) -> str:
    match said:
        case str():
            return escape_markdown(said)
        case Symbols(label):
            return markdown(label)
        case Bold(words):
            return f"**{_words(words)}**"
        case Code(text):
            return code_markdown(text)
        case Subscript(text):
            return f"<sub>{escape_markdown(text)}</sub>"
        case LineBreak():
            return "<br>"
        case Image(source, alternative, None):
            return f"![{escape_markdown(alternative)}]({source})"
        case Image(source, alternative, width):
            return f'<img src="{html.escape(str(source))}" alt="{html.escape(alternative)}" width="{width}">'
        case Link(words, target):
            return f"[{_words(words)}]({target})"
        case tuple():
            return "".join(map(_words, said))


def _fence(text: str) -> str:
    """More backticks than the text has in a row."""
    return "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])


# ---- the results table ----------------------------------------------------------------------------------------------


def _results(table: ResultsTable) -> str:
    """The table, its footnotes, and a list of what holds for the whole of it."""
    verdict = f"> **{escape_markdown(table.verdict)}**" if table.verdict else ""
    notes = "<br>\n".join(f"<sup>{letter}</sup> {escape_markdown(text)}" for letter, text in table.notes)
    remarks = "\n".join(f"- {escape_markdown(remark)}" for remark in table.remarks)
    return "\n\n".join(part for part in (verdict, _rows(table), notes, remarks) if part)


def _rows(table: ResultsTable) -> str:
    heads = [_field(head) for head in table.heads]
    for index in range(len(heads) - table.published, len(heads)):
        heads[index] = f"{PUBLISHED.lower()} {heads[index]}"
    empty = [""] * len(heads)
    lines = []
    for group, members in grouped(table.lines):
        lines += [[f"**{markdown(group)}**", *empty]] if group else []
        lines += [[markdown(member.label), *_fields(member)] for member in members]
    if table.anchors:
        lines.append([f"**{ANCHORS}**", *empty])
        lines += [[escape_markdown(anchor.label), *_fields(anchor)] for anchor in table.anchors]
    return markdown_table("l" + "r" * len(heads), [escape_markdown(table.labels_are), *heads], lines)


def _fields(line: Line) -> list[str]:
    return [_field(field) for field in line.fields]


def _field(field: Field) -> str:
    text = escape_markdown(field.text)
    return (f"**{text}**" if field.bold else text) + (f"<sup>{field.note}</sup>" if field.note else "")
