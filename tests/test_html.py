"""The report as one HTML page, in a real headless browser that opens it from the disk."""

import re
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from html_pages import GRID, Opened, chromium, report, show, unfold, written
from records import make_record, paper_records

from ddpm_bench.config.grid import Grid
from ddpm_bench.records.record import Divergence, Record

__all__ = ["chromium", "report", "show"]  # fixtures

HOSTILE = (
    """<script>window.harmed = 1</script>"'><img src=x onerror="window.harmed = 2"> """
    "[a](javascript:b) ![a](b.png) `c` *d* __e__ &lt; {{ 7 }}"
)
LUMINANCE = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (colour) => colour.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if ((colour[3] ?? 1) > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !element.checkVisibility() || element.matches("script")) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walk.currentNode.textContent.trim()]);
  }
  return found;
})()
"""
"""[contrast, text] of every visible text, as WCAG 2 defines contrast."""


def test_it_opens_from_the_disk_without_errors_and_asks_for_nothing_else(show, report: Path) -> None:
    opened = show(report)
    unfold(opened)
    opened.page.wait_for_load_state("networkidle")
    assert opened.said == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [report.as_uri()]
    pictures = opened.page.locator("img")
    assert pictures.count() >= 8
    assert all(pictures.evaluate_all("all => all.map((img) => img.complete && img.naturalWidth > 0)"))


def number(text: str) -> float | None:
    first = text.split()[0].replace(",", "") if text else ""
    try:
        return float(first)
    except ValueError:
        return None


@pytest.mark.parametrize("heading", ["FD (embedded) ↓", "IS (embedded) ↑"])
def test_columns_sort_by_number_with_dashes_last_and_back(show, report: Path, heading: str) -> None:
    opened = show(report)
    before = opened.column(heading)
    known = [value for text in before if (value := number(text)) is not None]
    assert known != sorted(known) and known != sorted(known, reverse=True) and len(known) < len(before)
    head = opened.page.locator("table.main th[scope=col]", has_text=heading).first
    others = opened.page.locator("table.main th[scope=col]").count() - 1
    for state, order in (("ascending", sorted(known)), ("descending", sorted(known, reverse=True))):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == state
        values = [number(text) for text in opened.column(heading)]
        assert values == order + [None] * (len(before) - len(known))
        assert opened.page.locator("table.main [aria-sort=none]").count() == others
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none" and opened.column(heading) == before


def test_a_sorted_row_still_says_which_group_it_is_of(show, report: Path) -> None:
    opened = show(report)
    row = opened.page.locator("table.main tbody tr", has_text="learned diagonal").first
    assert "prediction" not in row.inner_text()
    opened.page.locator("table.main th button").first.press("Enter")
    rows = opened.page.locator("table.main tbody:not(.anchors) tr:visible").all_inner_texts()
    assert ["prediction" in row for row in rows] == [True] * len(GRID.cells)
    assert opened.page.locator("table.main tr.group:visible").all_inner_texts() == [
        "Anchors: known images, scored in the same way"
    ]


def test_a_cell_unfolds_by_keyboard(show, report: Path) -> None:
    opened = show(report)
    inside = opened.page.locator("#cell-mu-L-fixed .inside")
    assert not inside.is_visible()
    opened.page.locator("#cell-mu-L-fixed summary").focus()
    opened.page.keyboard.press("Enter")
    assert inside.is_visible()
    words = inside.inner_text()
    for needed in (
        "ddpm-bench ablate --grid table2 --preset quick --cells mu-L-fixed --seeds 0,1,2", "1 of 3 seeds diverged",
        "diverged at step 310", "learning_rate", "0123456789abcdef", "d" * 64, "torch-fidelity", "61.2",
    ):  # fmt: skip
        assert needed in words
    assert inside.locator(".samples img").is_visible() and inside.locator("polyline").count() == 3
    opened.page.keyboard.press("Enter")
    assert not inside.is_visible()


def test_a_row_of_the_table_leads_to_its_cell(show, report: Path) -> None:
    opened = show(report)
    opened.page.locator("table.main a[href='#cell-eps-L-learned']").click()
    assert opened.page.locator("#cell-eps-L-learned .inside").is_visible()
    assert opened.page.locator("table.main a[href='#cell-eps-mse-fixed']").count() == 0  # nobody has measured it


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_overflows(show, report: Path, width: int) -> None:
    opened = show(report, width)
    unfold(opened)
    for step in ("as it opens", "sorted"):
        wide, room = opened.page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
        assert wide <= room, step
        opened.page.locator("table.main th button").nth(1).click()
    outside = """all => all.filter((each) => each.checkVisibility()
      && !each.closest(".scroll, pre, .unseen, .skip, svg")
      && each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML.slice(0, 99))"""
    assert opened.page.locator("body *").evaluate_all(outside) == []


def test_a_wide_table_scrolls_in_its_own_frame_by_keyboard(show, report: Path) -> None:
    opened = show(report, 400)
    frame = opened.page.locator(".scroll", has=opened.page.locator("table.main"))
    assert frame.evaluate("frame => frame.scrollWidth > frame.clientWidth && frame.tabIndex === 0")
    frame.focus()
    opened.page.keyboard.press("ArrowRight")
    opened.page.wait_for_function("() => document.activeElement.scrollLeft > 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_and_the_schemes_differ(show, report: Path, scheme: str) -> None:
    opened = show(report, color_scheme=scheme)
    unfold(opened)
    opened.page.locator("table.main th button").first.click()
    found = opened.page.evaluate(LUMINANCE)
    assert len(found) > 500
    assert [text for contrast, text in found if contrast < 4.5] == []
    ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 380) == (scheme == "light")


def hostile() -> tuple[Grid, list[Record]]:
    """Everything that a user can write tries to become an element."""
    cells = tuple(cell.model_copy(update={"label": HOSTILE, "group": HOSTILE}) for cell in GRID.cells)
    grid = GRID.model_copy(update={"title": HOSTILE, "source": HOSTILE, "cells": cells})
    record = make_record(grid, "mu-L-fixed")
    extractor = record.extractor.model_copy(
        update={"name": HOSTILE, "labels": (f"FD {HOSTILE}", f"IS {HOSTILE}"), "verified": False}
    )
    update = {
        "extractor": extractor, "data": record.data.model_copy(update={"name": HOSTILE}),
        "preset": HOSTILE, "versions": {HOSTILE: HOSTILE}, "hardware": {HOSTILE: HOSTILE}, "git_commit": HOSTILE, "created": HOSTILE,
    }  # fmt: skip
    diverged = make_record(grid, "eps-L-fixed", diverged=Divergence(step=1, reason=HOSTILE))
    return grid, [record.model_copy(update=update) for record in (record, diverged)]


def test_hostile_text_is_text(show, tmp_path: Path) -> None:
    grid, records = hostile()
    opened = show(written(tmp_path, records, grid))
    unfold(opened)
    assert opened.said == [] and len(opened.requests) == 1
    assert opened.page.evaluate("window.harmed") is None
    assert opened.page.evaluate("document.scripts.length") == 1
    elements = opened.page.locator("body *")
    assert not elements.evaluate_all(
        "all => all.some((each) => each.getAttributeNames().some((name) => name.startsWith('on')))"
    )
    assert opened.page.locator("img, a[href^=javascript]").count() == 0
    plain = [
        opened.page.locator(where).first.inner_text().replace("\u00a0", " ")
        for where in (
            "h1", "main > p", ".lead p", "table.main tbody a", "tr.group th", "table.main caption", ".notes", "#cell-mu-L-fixed summary",
            "#cell-mu-L-fixed dl:has-text('onerror')", "#cell-eps-L-fixed .inside > p >> nth=1",
        )
    ]  # fmt: skip
    for text in [opened.page.title(), *plain]:
        assert HOSTILE in text


def on_paper(opened: Opened) -> tuple[bytes, list[tuple[int, int]]]:
    """The page as PDF, and how many pieces of text and how many pictures each page of it holds."""
    paper = opened.page.pdf(prefer_css_page_size=True)
    found = []
    for number in re.findall(rb"/Type\s*/Page\b.*?/Contents (\d+) 0 R", paper, re.DOTALL):
        start = re.search(rb"\n%s 0 obj.*?stream\r?\n" % number, paper, re.DOTALL).end()
        drawn = zlib.decompressobj().decompress(paper[start:])
        found.append((drawn.count(b"Tj"), drawn.count(b" Do")))
    return paper, found


def test_it_prints_as_it_is_folded_on_at_most_15_pages_none_of_them_blank(show, report: Path) -> None:
    opened = show(report)
    paper, sheets = on_paper(opened)
    across, down = map(float, re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", paper).groups())
    assert across > down  # the table is wide
    assert opened.page.locator(".plot").count() >= 9 and 5 < len(sheets) <= 15
    assert min(texts for texts, _ in sheets) > 10 and sheets[0][1] == 1  # the samples stand on the first
    unfold(opened)
    assert len(on_paper(opened)[1]) > len(sheets) + 5


def test_headings_stay_with_what_follows_them_on_paper(show, report: Path) -> None:
    opened = show(report)
    opened.page.emulate_media(media="print")
    style = "all => all.map((each) => getComputedStyle(each).{})"
    assert opened.page.locator(".plot:not(:has(h3)), .plot:not(:has(img))").count() == 0
    assert set(opened.page.locator(".plot").evaluate_all(style.format("breakInside"))) == {"avoid"}
    kept = opened.page.locator("h2, h3, h2 + p, p:has(+ .scroll), summary")
    assert set(kept.evaluate_all(style.format("breakAfter"))) == {"avoid"}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_a_narrow_window_shows_which_group_the_columns_are_of_wherever_it_is_scrolled(
    show, report: Path, share
) -> None:
    opened = show(report, 390)
    frame = opened.page.locator(".scroll", has=opened.page.locator("table.main"))
    frame.evaluate("(frame, share) => { frame.scrollLeft = share * (frame.scrollWidth - frame.clientWidth); }", share)
    seen = """(all) => all.filter((each) => {
      const [box, heading] = [each.getBoundingClientRect(), document.querySelector("table.main tbody th[scope=row]")];
      return box.left >= heading.getBoundingClientRect().right && box.right <= innerWidth;
    }).map((each) => each.textContent)"""
    shown = opened.page.locator("table.main th[scope=colgroup] > span").evaluate_all(seen)
    assert ("Published" if share == 1 else "Measured here") in shown


def test_no_table_is_cut_off_on_paper(show, report: Path) -> None:
    opened = show(report, width=960)  # Letter, landscape, less its margins
    opened.page.emulate_media(media="print")
    unfold(opened)
    cut = opened.page.locator(".scroll").evaluate_all(
        "all => all.filter((each) => each.scrollWidth > innerWidth).length"
    )
    assert opened.page.locator(".scroll").count() > 10 and cut == 0


def test_it_reads_without_its_script(show, report: Path) -> None:
    opened = show(report, java_script_enabled=False)
    assert opened.page.locator("button:visible").count() == 0
    assert opened.page.locator("table.main tbody a").first.is_visible()
    opened.page.locator("#cell-mu-L-fixed summary").press("Enter")
    assert opened.page.locator("#cell-mu-L-fixed .inside").is_visible()


def test_a_screen_reader_finds_its_way(show, report: Path) -> None:
    opened = show(report)
    unfold(opened)
    evaluate = opened.page.evaluate
    assert evaluate("document.documentElement.lang") == "en"
    assert evaluate("[...document.querySelectorAll('table')].every((each) => each.caption?.textContent.trim())")
    assert evaluate("[...document.querySelectorAll('th')].every((each) => each.scope)")
    assert evaluate("[...document.querySelectorAll('img')].every((each) => each.alt.trim())")
    levels = evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map((each) => Number(each.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    names = evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(names) == len(set(names))
    links = evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map((each) => each.hash.slice(1))")
    assert len(links) > 10 and set(links) <= set(names)
    assert not evaluate(
        "[...document.querySelectorAll('a:not([download])')].some((each) => each.protocol === 'file:' && !each.hash)"
    )


def test_the_keyboard_skips_the_contents_and_shows_where_it_is(show, report: Path) -> None:
    opened = show(report)
    opened.page.keyboard.press("Tab")
    skip = opened.page.locator("a.skip")
    assert skip.evaluate("link => link === document.activeElement && link.getBoundingClientRect().left >= 0")
    opened.page.keyboard.press("Enter")
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.querySelector('main').contains(document.activeElement)")
    assert opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_last_and_best_checkpoints_have_a_table_each(show, tmp_path: Path) -> None:
    opened = show(written(tmp_path, paper_records()))
    assert opened.page.locator("table.main").count() == 2
    captions = opened.page.locator("table.main caption").all_inner_texts()
    assert "last checkpoint" in captions[0] and "lowest FID" in captions[1]
    seeds = opened.page.locator("#cell-mu-L-fixed table tbody tr")
    assert seeds.count() == 3  # every checkpoint of the one seed
