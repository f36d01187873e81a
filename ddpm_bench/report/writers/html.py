"""Blocks as HTML. Pictures and PDF files are put inside, so that the page needs no file beside it."""

import base64
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.records.pictures import SIGNATURE, picture_size
from ddpm_bench.report import labels
from ddpm_bench.report.blocks import (
    Block,
    Bold,
    Bullets,
    Code,
    CodeBlock,
    Details,
    Figure,
    Heading,
    Image,
    Lead,
    LineBreak,
    Link,
    Paragraph,
    Subscript,
    Symbols,
    Table,
    Words,
)
from ddpm_bench.report.results_table import ANCHORS, MEASURED_HERE, PUBLISHED


def block_html(block: Block, folder: Path) -> Markup:
    """A block, the results table left to `html_page`. Pictures are PNG files in `folder`, and are put inside."""
    match block:
        case Heading(2, said):
            words = words_html(said, folder)
            return Markup('<h2 id="{}">{}</h2>').format(anchor(words.striptags()), words)
        case Heading(level, said):
            return Markup("<h{0}>{1}</h{0}>").format(level, words_html(said, folder))
        case Paragraph(said):
            return Markup("<p>{}</p>").format(words_html(said, folder))
        case Bullets(items):
            listed = Markup("\n").join(Markup("<li>{}</li>").format(words_html(item, folder)) for item in items)
            return Markup("<ul>\n{}\n</ul>").format(listed)
        case CodeBlock(language, text):
            return Markup('<pre><code class="language-{}">{}\n</code></pre>').format(language, text)
        case Table():
            return _table(block, folder)
        case Figure(title, image):
            return Markup('<figure class="plot"><h3>{}</h3>\n{}\n{}</figure>').format(
                title, words_html(image, folder), _caption(block, folder)
            )
        case Lead(paragraphs, figure):
            said = Markup("\n").join(Markup("<p>{}</p>").format(words_html(each, folder)) for each in paragraphs)
            shown = figure and Markup("<figure>{}\n{}</figure>").format(
                words_html(figure.image, folder), _caption(figure, folder)
            )
            return Markup('<div class="lead"><div>\n{}\n</div>\n{}</div>').format(said, shown or "")
        case Details(summary, blocks, unfolded):
            inside = Markup("\n").join(block_html(each, folder) for each in blocks)
            return Markup("<details{}><summary>{}</summary>\n{}\n</details>").format(
                " open" if unfolded else "", words_html(summary, folder), inside
            )
    raise TypeError(f"no HTML for a {type(block).__name__} here")


def _caption(figure: Figure, folder: Path) -> Markup:
    link = words_html(Link("PDF", figure.pdf), folder)
    return Markup("<figcaption>{} ({})</figcaption>").format(figure.caption, link)


def _table(table: Table, folder: Path) -> Markup:
    """A table in a frame that scrolls, the first of each line as the line's heading. One with numbers can be sorted."""

    def line(entries: Sequence[Words | None]) -> list[Markup]:
        return [Markup("") if entry is None else words_html(entry, folder) for entry in entries]

    kinds = ["number" if letter == "r" else "text" for letter in table.align]
    caption = words_html(table.caption, folder).striptags()
    template = environment().get_template("table.html")
    made = template.render(caption=caption, kinds=kinds, head=line(table.heads), body=map(line, table.lines))
    return Markup(made.strip())


def words_html(said: Words, folder: Path) -> Markup:
    """Words within a block; everything that is a plain string is escaped."""
    match said:
        case str():
            return escape(labels.one_line(said))
        case Symbols(label):
            return labels.html(label)
        case Bold(words):
            return Markup("<strong>{}</strong>").format(words_html(words, folder))
        case Code(text):
            return Markup("<code>{}</code>").format(labels.one_line(text))
        case Subscript(text):
            return Markup("<sub>{}</sub>").format(text)
        case LineBreak():
            return Markup("<br>")
        case Image(source, alternative):
            return inlined(folder, folder / source, alternative)
        case Link(words, target):
            return _link(words, folder, target)
        case tuple():
            return Markup("").join(words_html(each, folder) for each in said)


def _link(words: Words, folder: Path, target: str) -> Markup:
    """A PDF is put inside, too; another file stays where it is."""
    path = folder / target
    if path.suffix == ".pdf" and (content := _content(folder, path)):
        start = Markup('<a download="{}" href="data:application/pdf;base64,{}">{}</a>')
        return start.format(path.name, _base64(content), words_html(words, folder))
    return Markup('<a href="{}">{}</a>').format(target, words_html(words, folder))


def _content(folder: Path, path: Path) -> bytes:
    """The bytes of a file of the report that lies in `folder`; of a link, or of what lies elsewhere, nothing."""
    inside = path.resolve().is_relative_to(folder.resolve())
    return path.read_bytes() if inside and path.is_file() and not path.is_symlink() else b""


def inlined(folder: Path, path: Path, alternative: str) -> Markup:
    """An <img> that holds the PNG at `path`, a file of the report in `folder`; the words alone where there is none."""
    content = _content(folder, path)
    if not content.startswith(SIGNATURE):
        return escape(f"[{alternative}]")
    width, height = picture_size(content)
    return Markup('<img src="data:image/png;base64,{}" alt="{}" width="{}" height="{}">').format(
        _base64(content), alternative, width, height
    )


def anchor(heading: str) -> str:
    """The id of a heading."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("ddpm_bench.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.filters |= {"label": labels.html, "plain": labels.plain, "arrows": _arrows, "unbroken": _unbroken}
    made.globals |= {"ANCHORS": ANCHORS, "MEASURED_HERE": MEASURED_HERE, "PUBLISHED": PUBLISHED}
    return made


def _arrows(text: str) -> Markup:
    """A heading whose arrow says what it means."""
    out = escape(text)
    for arrow, words in {metric.arrow: metric.better for metric in METRICS.values()}.items():
        out = out.replace(f" {arrow}", Markup('\u00a0<abbr title="{}">{}</abbr>').format(words, arrow))
    return out


def _unbroken(text: str) -> str:
    """A number stays in one line with its ±, an interval with its brackets, `2 of 3`."""
    return re.sub(r" (?=±|of )|(?<=±|≤) |(?<=of) |(?<=,) (?=[^\[\]]*\])", "\u00a0", text)
