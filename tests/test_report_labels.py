"""Labels and escaping: symbols become mathematics in every writing, and nobody's text becomes markup."""

import html
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.mathtext import MathTextParser

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.report import labels

# Any characters, and those that mean something in Markdown, TeX or HTML far more often than chance would have it.
ANY = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs"), include_characters=" "))
TEXT = st.one_of(ANY, st.text(r"`*_[]()#<>&$|~!\{}^%;:-–±ab1 "))
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NASTY = r"a_b|c*d*`e`$f$<i>&amp;[g](h)\i#j{k}~l^m%n &#36; **bold** !x"


@pytest.mark.parametrize(
    ("label", "latex", "markdown", "plain"),
    [
        ("L, learned Sigma", r"$L$, learned $\Sigma$", "*L*, learned Σ", "L, learned Σ"),
        (
            "||mu-tilde - mu_theta||^2",
            r"$\|\tilde{\mu} - \mu_\theta\|^2$",
            "‖μ̃ − μ<sub>θ</sub>‖²",
            "‖μ̃ − μ_θ‖²",
        ),
        (
            "||eps - eps_theta||^2 (L_simple)",
            r"$\|\epsilon - \epsilon_\theta\|^2$ ($L_{\mathrm{simple}}$)",
            "‖ε − ε<sub>θ</sub>‖² (*L*<sub>simple</sub>)",
            "‖ε − ε_θ‖² (L_simple)",
        ),
        ("mu-tilde prediction", r"$\tilde{\mu}$ prediction", "μ̃ prediction", "μ̃ prediction"),
    ],
)
def test_the_papers_labels_become_mathematics(label: str, latex: str, markdown: str, plain: str) -> None:
    assert (labels.latex(label), labels.markdown(label), labels.plain(label)) == (latex, markdown, plain)


def test_no_label_of_a_shipped_grid_keeps_a_symbol_in_plain_words() -> None:
    for row in (*load_grid("table2").rows, *load_grid("table1").rows):
        for text in (row.group, row.label):
            assert not re.search(r"eps|mu-tilde|mu_theta|Sigma|\|\|", labels.plain(text))


def test_symbols_inside_words_are_left_alone() -> None:
    for text in ("L-shaped", "LSTM", "my_eps_2", "mules", "beta2"):
        assert labels.plain(text) == text


def test_bars_around_other_text_are_no_norm() -> None:
    assert labels.latex("||$||^2") == r"\textbar{}\textbar{}\$\textbar{}\textbar{}\textasciicircum{}2"


def test_mathtext_of_every_label_can_be_drawn() -> None:
    parser = MathTextParser("path")
    for text in [*(cell.label for cell in load_grid("table2").cells), NASTY]:
        parser.parse(labels.mathtext(text))


def test_long_labels_are_written_in_lines_and_a_norm_stays_whole() -> None:
    assert labels.mathtext_lines("NCSNv2, without a last denoising", 29) == "NCSNv2, without a last\ndenoising"
    assert labels.mathtext_lines("NCSN", 2) == "NCSN" and labels.mathtext_lines("", 9) == ""
    first, second = labels.mathtext_lines("||mu-tilde - mu_theta||^2 of beta", 9).split("\n")
    assert first == labels.mathtext("||mu-tilde - mu_theta||^2") and second == labels.mathtext("of beta")


def test_dollars_of_a_user_are_drawn_as_dollars() -> None:
    assert labels.mathtext("costs $5 and $6") == r"costs \$5 and \$6"


def test_dollars_of_a_user_are_no_mathematics_on_a_code_host() -> None:
    assert "$" not in labels.escape_markdown("costs $5 and $6")


def shown(markdown: str) -> str:
    """What a reader sees of one line of GitHub Markdown."""
    rendered = PARSER.renderInline(markdown)
    assert "<" not in re.sub(r"</?code>", "", rendered), rendered
    return html.unescape(re.sub(r"</?code>", "", rendered))


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_escaped_markdown_shows_the_text_as_it_was_typed(text: str) -> None:
    text = text.strip()
    assert shown(labels.escape_markdown(text)) == text


@pytest.mark.parametrize(
    "text", [NASTY, "| a |", "x\n## heading\n- item", "<script>alert(1)</script>", "![p](http://x)"]
)
def test_nasty_text_stays_in_its_table_cell(text: str) -> None:
    page = f"| a | b |\n| --- | --- |\n| {labels.escape_markdown(text)} | {labels.code_markdown(text)} |\n"
    rendered = PARSER.render(page)
    cells = re.findall(r"<td>(.*?)</td>", rendered)
    assert [html.unescape(re.sub(r"</?code>", "", cell)) for cell in cells] == [text.replace("\n", " ")] * 2


@settings(max_examples=200, deadline=None)
@given(TEXT)
@example("“")  # two grave accents are how TeX writes it
def test_escaped_tex_has_no_active_character_left(text: str) -> None:
    escaped = labels.escape_tex(text)
    # Without the commands that escaping makes, nothing may be left that TeX acts on.
    made = r"\\[{}$&#%_]|\\text[a-z]+\{(U\+[0-9A-F]+|2)?\}|\\ldots\{\}|\$(\\[a-zA-Z]+|\\tilde\{\\[a-z]+\}|-)\$|-\{\}|``"
    rest = re.sub(made, "", escaped)
    assert not re.search(r"[\\{}$&#%_~^<>|`]", rest), escaped
    assert all(c in labels._TEX_LETTERS for c in rest if ord(c) > 126)


def test_two_hyphens_are_not_an_en_dash_in_tex_and_an_en_dash_is() -> None:
    assert labels.escape_tex("--grid – x") == "-{}-grid -- x"
