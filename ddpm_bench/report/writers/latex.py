"""The results table as LaTeX (booktabs), by the template `table.tex`, and a document that shows it."""

import re
from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from ddpm_bench.report import labels
from ddpm_bench.report.results_table import ANCHORS, MEASURED_HERE, PUBLISHED, Field, ResultsTable, grouped

ENDS = ("brackets are", "sub- and superscripts are the ends of")
"""How a remark speaks of intervals, and how in LaTeX."""


def to_latex(tables: Sequence[ResultsTable], label: str) -> str:
    r"""Float(s) for \input in any document that loads booktabs; one for each selection of checkpoints."""
    return _environment().get_template("table.tex").render(tables=tables, label=label)


def latex_document() -> str:
    r"""A document of its own around table.tex."""
    return _environment().get_template("table-document.tex").render()


def _entry(field: Field, wide: bool) -> str:
    """A heading or an entry. The table has to fit a page: what follows a ± becomes a subscript, the ends of intervals
    sub- and superscript, "2 of 3" "2/3"; a wide table goes without some of them."""
    brief = field.brief and (wide or re.fullmatch(r"\d+ of \d+", field.text))
    text = labels.escape_tex(field.brief if brief else field.text)
    text = re.sub(r" \[(-?[0-9.]+), (-?[0-9.]+)\]", r"$_{\1}^{\2}$", text)
    text = re.sub(r"^-(?=[0-9])", "$-$", re.sub(r" \$\\pm\$ ([0-9.]+)", r"$_{\\pm \1}$", text))
    text += rf"\textsuperscript{{{field.note}}}" if field.note else ""
    return rf"\textcolor{{gray}}{{{text}}}" if field.failed else text


def _first(text: str) -> str:
    r"""What follows a \\, which would take a bracket or a star for an option of its own."""
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def _shortened(table: ResultsTable) -> bool:
    """Has a wide table entries without their ± or interval?"""
    return any(field.brief and len(field.brief) < len(field.text) for line in table.lines for field in line.fields)


@cache
def _environment() -> Environment:
    # Braces and percent signs are LaTeX's own. Escaping is LaTeX's too: every text passes a filter.
    made = Environment(
        loader=PackageLoader("ddpm_bench.report"), autoescape=False, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        block_start_string="<%", block_end_string="%>", variable_start_string="<<", variable_end_string=">>",
        comment_start_string="<#", comment_end_string="#>",
    )  # fmt: skip
    made.filters |= {
        "tex": labels.escape_tex,
        "label": labels.latex,
        "first": _first,
        "stacked": lambda text: r"\\".join(map(_first, text.split(" "))),
        "remark": lambda text: labels.escape_tex(text.replace(*ENDS)),
        "entry": _entry,
    }
    made.tests |= {"shortened": _shortened}
    made.globals |= {"ANCHORS": ANCHORS, "MEASURED_HERE": MEASURED_HERE, "PUBLISHED": PUBLISHED, "groups": grouped}
    return made
