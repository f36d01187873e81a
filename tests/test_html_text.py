"""What stands in the report's HTML page, read without a browser."""

import re
from pathlib import Path, PurePosixPath

from html_pages import GRID, written
from markupsafe import escape
from records import make_record, quick_records

from ddpm_bench.records.record import Divergence, LogPoint
from ddpm_bench.report.blocks import Details, Image, Paragraph, Symbols
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.sections import page
from ddpm_bench.report.sections.cells import curve, provenance, scores
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.html import block_html, words_html
from ddpm_bench.report.writers.markdown import to_markdown


def test_every_section_of_the_markdown_page_is_there(tmp_path: Path) -> None:
    measured = summaries(quick_records(), GRID)
    markdown = to_markdown(page(measured, [make_table(measured[0])], {}))
    text = written(tmp_path, quick_records()).read_text()
    sections = re.findall(r"^## (.*)$", markdown, re.MULTILINE)
    assert len(sections) > 4 and [section for section in sections if f">{escape(section)}</h2>" not in text] == []
    assert "| Objective |" not in text and "| ---" not in text


def test_the_same_records_give_the_same_page(tmp_path: Path) -> None:
    first, second = (written(tmp_path, quick_records()).read_bytes() for _ in range(2))
    assert first == second


def test_seeds_that_differ_are_told_apart() -> None:
    records = [make_record(GRID, "mu-L-fixed", seed) for seed in (0, 1, 2)]
    records[1] = records[1].model_copy(update={"git_commit": "fedcba"})
    run = provenance(records)["run"]
    assert run["git_commit"] == [f"seeds 0, 2: {records[0].git_commit}", "seed 1: fedcba"]
    assert run["preset"] == ["quick"]


def test_scores_are_those_of_the_records_with_their_intervals() -> None:
    record = make_record(GRID, "mu-L-fixed")
    found = scores([record, make_record(GRID, "mu-L-fixed", 1, diverged=Divergence(step=310, reason="x"))])
    at = found.heads.index("IS (embedded) ↑")
    low, *_, high = record.last.quantiles["is_mean"]
    assert found.lines[0][at] == f"{record.last.metrics['is_mean']:.2f} [{low:.2f}, {high:.2f}]"
    assert found.lines[0][found.heads.index("IS (embedded), std")] == "0.11"
    assert found.lines[1][:3] == ("1", "", "diverged at step 310") and set(found.lines[1][3:]) == {"n/a"}


def test_a_curve_leaves_out_what_is_not_finite_and_says_when_there_is_none() -> None:
    record = make_record(GRID, "mu-L-fixed")
    log = tuple(LogPoint(step=s, loss=x, gradient_norm=1.0) for s, x in ((10, 1.0), (20, float("nan")), (40, 0.01)))
    drawn = curve([record.model_copy(update={"training_log": log})])
    assert drawn.traces[0].points == ((0.25, 1.0), (1.0, 0.0)) and drawn.logarithmic
    assert curve([record.model_copy(update={"training_log": ()})]) is None


def test_only_the_reports_own_tags_pass(tmp_path: Path) -> None:
    label = Symbols("L_simple <b>x</b>")
    assert words_html(label, tmp_path) == "<em>L</em><sub>simple</sub> &lt;b&gt;x&lt;/b&gt;"
    inside = Paragraph("z"), Paragraph("<script>\nalert(1)\n</script>")
    block = block_html(Details(Symbols("L <i>y</i>"), inside), tmp_path)
    assert "<summary><em>L</em> &lt;i&gt;y&lt;/i&gt;</summary>" in block and "<script" not in block


def test_a_picture_that_is_none_leaves_its_words(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("<svg/>")
    for name in ("no.png", "missing.png"):
        assert words_html(Image(PurePosixPath(name), "words"), tmp_path) == "[words]"
