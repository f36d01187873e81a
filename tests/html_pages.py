"""The report as one HTML page, written for tests and opened in a real headless browser."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from programs import browser
from records import quick_records, write_results

from ddpm_bench.config.grid import Grid
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import Record
from ddpm_bench.report import render
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.sections import page
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.html_page import html_page

GRID = load_grid("table2")


@dataclass
class Opened:
    """A page in the browser, with what it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def column(self, heading: str) -> list[str]:
        """The entries of a column of the first main table from the top down, the anchors left out."""
        return self.page.evaluate(
            """(heading) => {
              const table = document.querySelector("table.main");
              const words = (cell) => cell.textContent.trim().replaceAll("\\u00a0", " ");
              const head = [...table.querySelectorAll("th[scope=col]")].find((th) => words(th) === heading);
              const rows = [...table.querySelectorAll("tbody:not(.anchors) tr:not(.group)")];
              return rows.map((row) => words(row.cells[head.cellIndex]));
            }""",
            heading,
        )


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture
def show(chromium: Any) -> Iterator[Callable[..., Opened]]:
    """Open a file in a window `width` pixels wide."""
    contexts = []

    def show(path: Path, width: int = 1400, **options: Any) -> Opened:
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, **options))
        opened = Opened(contexts[-1].new_page())
        opened.page.on("console", lambda message: opened.said.append(message.text))
        opened.page.on("pageerror", lambda error: opened.said.append(str(error)))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(path.as_uri())
        return opened

    yield show
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of cell, with all figures, as `ddpm-bench report` writes it; moved away from everything beside it."""
    folder = tmp_path_factory.mktemp("report")
    records = quick_records()
    write_results(folder / "results", records)
    render(records, GRID, folder / "out", folder / "results")
    return (folder / "out" / "report.html").rename(folder / "alone.html")


def written(path: Path, records: list[Record], grid: Grid = GRID) -> Path:
    """A page without pictures."""
    measured = summaries(records, grid)
    tables = [make_table(summary) for summary in measured]
    text = html_page(page(measured, tables, {}), measured, tables, {}, path)
    (path / "report.html").write_text(text, encoding="utf-8")
    return path / "report.html"


def unfold(opened: Opened) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
