"""Records from strangers: any change to a record is refused by name of file and field, or gives a report that is right."""

import copy
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from records import make_record

from ddpm_bench.config.grid import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.records.compare import repeats, why_not
from ddpm_bench.records.record import read_record
from ddpm_bench.report import terminal_table
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.sections import page
from ddpm_bench.report.side_by_side import side_by_side
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.html_page import html_page
from ddpm_bench.report.writers.latex import to_latex
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.report.writers.numbers import to_frame
from ddpm_bench.runtime.terminal import PlainConsole

GRID = load_grid("table2")
SMALL = {"diffusion": {"T": 12}, "training": {"log_every": 100}, "sampling": {"steps": None}, "data": {"size": 16}}
DONE = json.loads(json.dumps(make_record(GRID, "eps-mse-fixed", overrides=SMALL).as_json()))
HOSTILE = [
    "=1+1", "![x](/abs/secret.png)", "[x](secret.pdf)", "```", "</td><script>", "| a | b |", "\\end{tabular}", "$", "[x] *y*",
    "{score}", "%", "# x", "&amp;", "”é中", "\x1b[2J", "a\nb", "\u202eabc", "\ud800", "\0", "x" * 20_000, "", " ", "../x.png",
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 10**13, 10**400, -0.5, 1e308, "NaN", "Infinity", "-Infinity", [], {}, [[]], [1] * 3]),
    st.sampled_from(HOSTILE),
    st.text(max_size=8),
    st.floats(),
    st.integers(),
)  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every place in a JSON value; of long lists the first two."""
    found = [path] if path else []
    if isinstance(value, dict):
        found += [place for key, held in value.items() for place in places(held, (*path, key))]
    elif isinstance(value, list):
        found += [place for at, held in enumerate(value[:2]) for place in places(held, (*path, at))]
    return found


def change(content: dict[str, Any], place: tuple, how: str, value: Any) -> None:
    """Put the value at the place, or beside it, take away what stands there, or have it twice."""
    *way, last = place
    for key in way:
        content = content[key]
    if how == "remove":
        del content[last]
    elif how == "double" and isinstance(content[last], list):
        content[last] = content[last] * 2
    elif how == "shorten" and isinstance(content[last], list):
        content[last] = content[last][:1]
    elif how == "beside" and isinstance(content, dict):
        content[value if isinstance(value, str) else "new"] = content[last]
    else:
        content[last] = value


@st.composite
def foreign(draw: Callable) -> str:
    """The text of a record with one to three changes."""
    content = copy.deepcopy(DONE)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(content)))
        change(
            content,
            place,
            draw(st.sampled_from(["replace", "replace", "remove", "double", "shorten", "beside"])),
            draw(VALUES),
        )
    return json.dumps(content)


def report_of(path: Path) -> list[str]:
    """All that is written of the record but figures; UserError where it is refused."""
    record = read_record(path)
    grid = load_grid(record.grid)
    measured = summaries([record], grid)
    tables = [make_table(summary) for summary in measured]
    blocks = page(measured, tables, {})
    shown = io.StringIO()
    PlainConsole(file=shown, width=100).print(terminal_table([record], grid))
    side_by_side([record], [record])
    if not why_not([record], [record]):
        repeats([record], [record])
    return [
        to_markdown(blocks), html_page(blocks, measured, tables, {}, path.parent), to_latex(tables, grid.name),
        to_frame(measured).to_csv(index=False), shown.getvalue(),
    ]  # fmt: skip


def check_foreign(text: str, folder: Path) -> bool:
    """Whether the record was accepted; then all that is written of it holds no more than its words."""
    path = folder / "x-seed0.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        markdown, html, latex, csv, terminal = report_of(path)
    except UserError as error:
        str(error).encode("utf-8", "backslashreplace")
        return False
    for written in (markdown, html, latex, csv, terminal):
        written.encode()
        assert "\x1b" not in written and "\u202e" not in written
    assert (
        "<script>" not in html.replace("<script>" + html.rpartition("<script>")[2], "")
        and "secret.p" not in html.split("base64")[-1][:40]
    )
    assert re.search(r"(?<!\\)!\[x\]\(", markdown.replace("```", "")) is None or "--set" in markdown
    assert latex.count(r"\begin{tabular}") == latex.count("\n  \\end{tabular}")
    assert not [line for line in csv.splitlines() if re.search(r'(^|,)"?[=@]', line)]
    return True


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=foreign())
def test_a_record_with_any_change_is_refused_or_reported(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_foreign(text, tmp_path_factory.getbasetemp())
