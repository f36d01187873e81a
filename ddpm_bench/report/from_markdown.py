"""The report's own Markdown as HTML that stands alone: pictures inlined, tables fit for screen readers.

Raw tags pass only if they are among the few that the report writes itself. All other text is escaped here, whatever
the Markdown's writer has done, so nothing that a user typed becomes an element.
"""

import base64
import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

_TAG = re.compile(r"(</?su[bp]>|<br>|<details(?: open)?>|</?summary>|</details>)")
_IMAGE = re.compile(r'<img src="([^"<>]*)" alt="([^"<>]*)"(?: width="\d+")?>')
_TITLE = re.compile(r"\*\*[^*]+\*\*|[^.:]+:")
_PNG = b"\x89PNG\r\n\x1a\n"


class _Writer(RendererHTML):
    """markdown-it calls the method that is named like a token's type."""

    def image(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        alternative = self.renderInlineAsText(token.children, options, env)
        return inlined(env["folder"] / str(token.attrs["src"]), alternative)

    def link_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        target = str(tokens[index].attrs["href"])
        if (file := env["folder"] / target).suffix == ".pdf" and file.is_file():
            start = Markup('<a download="{}" href="data:application/pdf;base64,{}">')
            return start.format(file.name, _base64(file.read_bytes()))
        return self.renderToken(tokens, index, options, env)

    def html_inline(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        content = tokens[index].content
        if picture := _IMAGE.fullmatch(content):
            source, alternative = map(html.unescape, picture.groups())
            return inlined(env["folder"] / source, alternative)
        return content if _TAG.fullmatch(content) else escape(content)

    def html_block(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        pieces = _TAG.split(tokens[index].content.strip())
        return "".join(piece if _TAG.fullmatch(piece) else inline(piece) for piece in pieces)


_MARKDOWN = MarkdownIt("commonmark", {"html": True}, renderer_cls=_Writer).enable("table")
_TABLE = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string("""\
<div class="scroll" role="region" tabindex="0" aria-label="{{ caption }}">
<table class="{{ 'sortable' if 'number' in kinds else 'plain' }}">
<caption class="unseen">{{ caption }}</caption>
{% if head | select | list %}
<thead><tr>
{% for words in head %}
{% if words %}
<th scope="col" class="{{ kinds[loop.index0] }}">{{ words }}</th>
{% else %}
<td></td>
{% endif %}
{% endfor %}
</tr></thead>
{% endif %}
<tbody>
{% for line in body %}
<tr>
{% for words in line %}
{% if loop.first and "<img" not in words %}
<th scope="row" class="{{ kinds[loop.index0] }}">{{ words }}</th>
{% else %}
<td class="{{ kinds[loop.index0] }}">{{ words }}</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
""")


def inline(text: str) -> Markup:
    """HTML of Markdown without pictures inside a line, such as a grid's label."""
    return _rendered(_MARKDOWN.parseInline(text.strip()), {})


def blocks(text: str, folder: Path) -> Markup:
    """HTML of Markdown; pictures are PNG files in `folder`. The id of a heading of level two is its `anchor`.

    A table is captioned by what stands before it: a heading, a paragraph in bold type or with a colon, or a summary.
    """
    out, name, env = [], "", {"folder": folder}
    for part in _parts(_MARKDOWN.parse(text, env)):
        first = part[0]
        if first.type == "table_open":
            out.append(_table(part, name, env))
            continue
        if first.type == "heading_open" or (first.type == "paragraph_open" and _TITLE.fullmatch(part[1].content)):
            name = inline(part[1].content).striptags().rstrip(":")
        elif first.type == "html_block" and "<summary>" in first.content:
            name = inline(_TAG.sub("", first.content)).striptags()
        if first.tag == "h2":
            first.attrSet("id", anchor(name))
        out.append(_rendered(part, env))
    return Markup("\n").join(out)


def headings(text: str) -> list[str]:
    """The words of every heading of level two."""
    parts = _parts(_MARKDOWN.parse(text))
    return [inline(part[1].content).striptags() for part in parts if part[0].tag == "h2"]


def anchor(heading: str) -> str:
    """The id of a heading."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def inlined(path: Path, alternative: str) -> Markup:
    """An <img> that holds the PNG at `path`; the words alone where there is none."""
    content = path.read_bytes() if path.is_file() else b""
    if not content.startswith(_PNG):
        return escape(f"[{alternative}]")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    return Markup('<img src="data:image/png;base64,{}" alt="{}" width="{}" height="{}">').format(
        _base64(content), alternative, width, height
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _rendered(tokens: Sequence[Token], env: Any) -> Markup:
    return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, env).strip())


def _parts(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """The tokens of one block after the other."""
    part: list[Token] = []
    depth = 0
    for token in tokens:
        part.append(token)
        depth += token.nesting
        if depth == 0:
            yield part
            part = []


def _table(tokens: Sequence[Token], caption: str, env: Any) -> Markup:
    """A table in a frame that scrolls; with headings, if it has any, and the first of each line as the line's heading.

    One that has columns of numbers can be sorted.
    """
    lines: list[list[Markup]] = []
    for token in tokens:
        if token.type == "tr_open":
            lines.append([])
        elif token.type == "inline":
            lines[-1].append(_rendered([token], env))
    kinds = ["number" if "right" in str(t.attrs.get("style")) else "text" for t in tokens if t.type == "th_open"]
    return Markup(_TABLE.render(caption=caption, kinds=kinds, head=lines[0], body=lines[1:]))
