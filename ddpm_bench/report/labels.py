"""Text in four writings: Markdown, HTML, LaTeX and plain unicode. The one place for symbols and for escaping.

Grid files spell symbols in plain words ("||mu-tilde - mu_theta||^2", "L, learned diagonal Sigma"); here they become
mathematics. Everything else is the user's text and comes out as it was typed, whatever it would mean in Markdown, LaTeX
or mathtext.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Symbol:
    """A piece of mathematics: `latex` without dollar signs, also mathtext; `plain` unicode, `_` before a subscript."""

    latex: str
    plain: str

    @property
    def markdown(self) -> str:
        base, _, subscript = self.plain.partition("_")
        base = f"*{base}*" if base.isascii() else base
        return f"{base}<sub>{subscript}</sub>" if subscript else base

    @property
    def html(self) -> str:
        base, _, subscript = self.plain.partition("_")
        base = f"<em>{base}</em>" if base.isascii() else base
        return f"{base}<sub>{subscript}</sub>" if subscript else base


SYMBOLS = {
    "L": Symbol("L", "L"),
    "L_simple": Symbol(r"L_{\mathrm{simple}}", "L_simple"),
    "L_vlb": Symbol(r"L_{\mathrm{vlb}}", "L_vlb"),
    "L_hybrid": Symbol(r"L_{\mathrm{hybrid}}", "L_hybrid"),
    "mu-tilde": Symbol(r"\tilde{\mu}", "μ̃"),
    "mu_theta": Symbol(r"\mu_\theta", "μ_θ"),
    "mu": Symbol(r"\mu", "μ"),
    "epsilon": Symbol(r"\epsilon", "ε"),
    "eps_theta": Symbol(r"\epsilon_\theta", "ε_θ"),
    "eps": Symbol(r"\epsilon", "ε"),
    "x_0": Symbol("x_0", "x_0"),
    "x_theta": Symbol(r"x_\theta", "x_θ"),
    "Sigma": Symbol(r"\Sigma", "Σ"),
    "beta-tilde": Symbol(r"\tilde{\beta}", "β̃"),
    "beta": Symbol(r"\beta", "β"),
}
_WORD = r"(?<![\w-])(?:" + "|".join(sorted(map(re.escape, SYMBOLS), key=len, reverse=True)) + r")(?![\w-])"
_PIECE = re.compile(rf"(\|\|[A-Za-z0-9_ +(),.-]+\|\|\^2|{_WORD})")
_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "–": "--",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "−": "$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "²": r"\textsuperscript{2}",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
}
_TEX_GREEK = {symbol.plain: symbol.latex for symbol in SYMBOLS.values() if not symbol.plain.isascii()}
# What pdflatex's default fonts can set with accents: Latin-1's letters without eth and thorn.
_TEX_LETTERS = frozenset(map(chr, range(0xC0, 0x100))) - set("×÷ÐðÞþ")


HELD = "\N{NO-BREAK SPACE}"


def markdown(label: str) -> str:
    """A grid's label as Markdown: 'L, learned diagonal Sigma' -> '*L*, learned diagonal Σ'."""
    return _write(label, lambda symbol: symbol.markdown, escape_markdown, _norm)


def html(label: str) -> Markup:
    """A grid's label as HTML: 'L, learned diagonal Sigma' -> '<em>L</em>, learned diagonal Σ'."""
    return Markup(_write(label, lambda symbol: symbol.html, lambda text: str(escape(one_line(text))), _norm))


def latex(label: str) -> str:
    """A grid's label as LaTeX that needs no package: 'L, diagonal Sigma' -> '$L$, diagonal $\\Sigma$'."""
    return _write(
        label, lambda symbol: f"${symbol.latex}$", escape_tex, lambda inner: rf"$\|{inner.replace('$', '')}\|^2$"
    )


def mathtext(label: str) -> str:
    """A grid's label for matplotlib."""
    return _write(
        label, lambda symbol: f"${symbol.latex}$", escape_mathtext, lambda inner: rf"$\|{inner.replace('$', '')}\|^2$"
    )


def mathtext_lines(label: str, most: int) -> str:
    """The same in lines of at most `most` characters, as far as its words allow; a norm is one word."""
    pieces = (piece.replace(" ", HELD) if piece.startswith("||") else piece for piece in _PIECE.split(label))
    first, *others = "".join(pieces).split(" ")
    lines = [first]
    for word in others:
        if len(plain(f"{lines[-1]} {word}")) <= most:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(mathtext(line.replace(HELD, " ")) for line in lines)


def plain(label: str) -> str:
    """A grid's label in unicode, for the terminal: '||mu-tilde - mu_theta||^2' -> '‖μ̃ − μ_θ‖²'."""
    return _write(label, lambda symbol: symbol.plain, one_line, _norm)


def _norm(inner: str) -> str:
    return f"‖{inner}‖²".replace(" - ", " − ")


def _write(label: str, symbol: Callable[[Symbol], str], text: Callable[[str], str], norm: Callable[[str], str]) -> str:
    pieces = []
    for piece in _PIECE.split(label):
        if piece in SYMBOLS:
            pieces.append(symbol(SYMBOLS[piece]))
        elif piece.startswith("||") and _PIECE.fullmatch(piece):
            pieces.append(norm(_write(piece[2:-4], symbol, text, norm)))
        else:
            pieces.append(text(piece))
    return "".join(pieces)


def one_line(text: str) -> str:
    """Line breaks and control characters become spaces; a table cell has one line."""
    if text.isprintable():
        return text
    return "".join(" " if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" else c for c in text)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table cell too; GitHub's `$math$` included."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")
    return re.sub(r"([\\`*_{}\[\]|#~])(?<!&#)", r"\\\1", text)


def code_markdown(text: str) -> str:
    """A code span, also in a table cell, whatever backticks and bars the text has."""
    text = one_line(text).replace("|", r"\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def escape_tex(text: str) -> str:
    """Text that pdflatex typesets as it is. A character that its default fonts lack becomes its code point."""
    return (
        "".join(_tex_character(c) for c in one_line(text))
        .replace("---", "-{}-{}-")
        .replace("--", "-{}-")
        .replace("\0", "--")
    )


def _tex_character(c: str) -> str:
    if c == "–":
        return "\0"  # a real en dash must not be taken for two hyphens
    if c in _TEX:
        return _TEX[c]
    if c in _TEX_GREEK:
        return f"${_TEX_GREEK[c]}$"
    return c if ord(c) < 127 or c in _TEX_LETTERS else rf"\texttt{{U+{ord(c):04X}}}"


def csv_value(value: object) -> object:
    """A value of a CSV file: a text that a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def escape_mathtext(text: str) -> str:
    """Text that matplotlib draws as it is."""
    return one_line(text).replace("$", r"\$")
