"""Records from strangers: any change to a record is refused by name of file and field, or gives a report that is right."""

import copy
import io
import json
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from records import EMBEDDED, make_record, write_results

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.records.compare import repeats, why_not
from ddpm_bench.records.record import Record, read_record, write_record
from ddpm_bench.report import render, terminal_table
from ddpm_bench.report.blocks import Image as Picture
from ddpm_bench.report.blocks import Link
from ddpm_bench.report.labels import csv_value
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.sections import page
from ddpm_bench.report.side_by_side import side_by_side
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.html import words_html
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
    except UserError:
        return False
    for written in (markdown, html, latex, csv, terminal):
        written.encode()
        assert not set(written) & set("\x1b\u202e\0")
    assert html.count("<script>") == 1 and "<img" not in html and 'href="secret' not in html
    assert not re.search(r"(?<!\\)\[x\]\(", outside_of_code(markdown)) and "\n# " not in markdown
    ends = latex.count("\n  \\end{tabularx}")
    assert latex.count(r"\end{tabular}") == 0 and latex.count(r"\end{tabularx}") == ends == len(
        summaries([read_record(path)], GRID)
    )  # fmt: skip
    assert not re.search(r'(^|,)"?[=@+-](?![0-9.])', csv, re.MULTILINE)
    return True


def outside_of_code(markdown: str) -> str:
    """Markdown without its blocks and spans of code, which show everything as it is."""
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", markdown, flags=re.DOTALL)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=foreign())
def test_a_record_with_any_change_is_refused_or_reported(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_foreign(text, tmp_path_factory.getbasetemp())


def hostile(text: str) -> dict[str, Any]:
    """A record with the text wherever a record may hold any."""
    content = copy.deepcopy(DONE)
    for place in (
        ("preset",), ("label",), ("data", "name"), ("extractor", "name"), ("git_commit",), ("created",), ("hardware", "processor"),
        ("versions", "torch"), ("settings", "data", "source"), ("settings", "scoring", "extractor"), ("extractor", "labels", 0),
        ("settings", "diffusion", "schedule"), ("settings", "diffusion", "fixed_variance"),
    ):  # fmt: skip
        change(content, place, "replace", text)
    return content


@pytest.mark.parametrize("text", HOSTILE[:14])
def test_words_of_a_record_stay_words_in_every_writing(tmp_path: Path, text: str) -> None:
    assert check_foreign(json.dumps(hostile(text)), tmp_path)


def read_with(folder: Path, place: tuple, value: Any) -> Record:
    """A record as it is read from a file that says `value` at `place`."""
    content = copy.deepcopy(DONE)
    change(content, place, "replace", value)
    (folder / "x-seed0.json").write_text(json.dumps(content))
    return read_record(folder / "x-seed0.json")


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "a\n```\n![x](/abs/secret.png)", "\u202eabc", "\ud800", "\0", "\u2028", "x" * 20_000]
)
@pytest.mark.parametrize(
    "place",
    [
        ("preset",), ("data", "name"), ("settings", "data", "source"), ("settings", "scoring", "extractor"),
        ("settings", "diffusion", "schedule"), ("hardware", "processor"), ("extractor", "labels", 0), ("versions", "torch"),
    ],
    ids=str,
)  # fmt: skip
def test_text_that_is_more_than_seen_is_refused_with_its_field(tmp_path: Path, place: tuple, text: str) -> None:
    with pytest.raises(UserError, match=rf"x-seed0\.json' is not a record of ddpm-bench: {place[0]}") as error:
        read_with(tmp_path, place, text)
    assert "\x1b" not in str(error.value) and "\n" not in str(error.value)


def nested(content: dict[str, Any]) -> None:
    value: list = []
    for _ in range(900):
        value = [value]
    content["hardware"]["x"] = value


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("checkpoints", 0, "quantiles", "fd_train"), []), (("checkpoints", 0, "quantiles", "fd_train"), [1.0]),
        (("checkpoints", 0, "metrics", "no_metric"), 1.0), (("checkpoints", 0, "metrics", "precision"), 1.5),
        (("checkpoints", 0, "metrics"), {}), (("checkpoints",), []), (("bounds", 0, "quantiles"), [1.0]), (("bounds", 0, "terms"), [1.0]),
        (("bounds", 0, "mse"), [0.1]), (("bounds", 0, "mse", 0), -1), (("bounds", 0, "evals"), 0), (("bounds", 1, "split"), "test"),
        (("training_log", 0, "step"), 0), (("divergence",), {"step": 3, "reason": "x"}), (("parameters",), -1), (("samples",), 10**400),
        (("seed",), 2**64), (("data", "shape"), [1, 0, 16]), (("data", "shape"), [2, 16, 16]), (("settings", "diffusion", "T"), 10**9),
        (("wall_time_s", "training"), "Infinity"), (("anchors", "blurred", "fd_train"), "NaN"), (("cell",), "../x"), (("grid",), "/x.toml"),
        (("hardware", "threads"), "many"), (("hardware", "x"), {"a": 1}), (("neighbours", "other"), {"samples": [], "test": []}),
        (("sample_grid",), "/etc/x.png"), (("pictures", "progressive"), "../../secret.png"), (("pictures", "progressive"), ".hidden.png"),
        (("pictures", "progressive"), "secret.pdf"), (("pictures", "progressive"), "a\\b.png"), (("pictures", "other"), "x.png"),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_with_file_and_field(tmp_path: Path, place: tuple, value: Any) -> None:
    with pytest.raises(
        UserError, match=rf"x-seed0\.json' is not a record of ddpm-bench: .*{place[0]}|x-seed0.json.*T = "
    ):
        read_with(tmp_path, place, value)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"seed": ' + "9" * 5000 + "}", '{"seed": NaN}', "", "\x00", "[]", "3"],
    ids=lambda t: t[:9],
)
def test_a_file_that_is_no_record_at_all_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "x-seed0.json").write_text(text)
    with pytest.raises(UserError, match=r"x-seed0\.json' is not a record of ddpm-bench"):
        read_record(tmp_path / "x-seed0.json")


def test_what_is_nested_deep_inside_a_record_or_is_no_file_is_refused(tmp_path: Path, monkeypatch) -> None:
    content = copy.deepcopy(DONE)
    nested(content)
    (tmp_path / "x-seed0.json").write_text(json.dumps(content))
    os.mkfifo(tmp_path / "y-seed0.json")
    (tmp_path / "z-seed0.json").mkdir()
    for name in "xyz":
        with pytest.raises(UserError, match=rf"{name}-seed0\.json' is not a record"):
            read_record(tmp_path / f"{name}-seed0.json")
    monkeypatch.setattr("ddpm_bench.records.reading.MOST_BYTES", 1000)
    write_record(tmp_path, make_record(GRID, "eps-mse-fixed"))
    with pytest.raises(UserError, match="bytes, and may have"):
        read_record(tmp_path / "eps-mse-fixed-seed0.json")


def png(width: int, height: int) -> bytes:
    """The head of a picture of that size, and no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def test_a_bomb_a_link_a_pipe_and_a_text_are_no_pictures_and_nothing_is_decoded(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    caplog.set_level("INFO", logger="ddpm_bench")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000))
    (tmp_path / "text.png").write_text("root:x:0:0")
    (tmp_path / "link.png").symlink_to(tmp_path / "text.png")
    os.mkfifo(tmp_path / "pipe.png")
    pictures = PictureFolder(tmp_path)
    said = {
        name: pictures.fault(name) or ""
        for name in ("bomb.png", "text.png", "link.png", "pipe.png", "no.png", "../bomb.png")
    }
    words = ("pixels", "not a PNG", "a link", "not a file", "missing", "not a plain file name")
    assert all(word in fault for word, fault in zip(words, said.values(), strict=True)), said
    assert all(name in caplog.text for name in said)


def test_a_page_embeds_files_of_its_own_folder_alone(tmp_path: Path) -> None:
    report, secret = tmp_path / "report", tmp_path / "secret.png"
    report.mkdir()
    Image.new("L", (4, 4)).save(secret)
    Image.new("L", (4, 4)).save(report / "own.png")
    (tmp_path / "secret.pdf").write_bytes(b"%PDF")
    (report / "link.png").symlink_to(secret)
    (report / "link.pdf").symlink_to(tmp_path / "secret.pdf")
    for source, embedded in (("own.png", True), ("link.png", False), ("../secret.png", False), (str(secret), False)):
        assert ("base64" in words_html(Picture(PurePosixPath(source), "x"), report)) is embedded
    for target in ("link.pdf", "../secret.pdf", str(tmp_path / "secret.pdf")):
        assert "base64" not in words_html(Link("x", target), report)


def test_a_text_that_a_spreadsheet_would_compute_gets_an_apostrophe_and_numbers_stay_numbers(tmp_path: Path) -> None:
    record = make_record(GRID, "eps-mse-fixed").model_copy(update={"preset": "=1+1"})
    line = to_frame(summaries([record], GRID)).set_index("cell").loc["eps-mse-fixed"]
    assert line["preset"] == "'=1+1" and line["kid_mean"] == record.final.metrics["kid_mean"]
    for text in ("=1", "+1", "-1", "@x", "\tx", "\rx"):
        assert csv_value(text) == f"'{text}"
    assert csv_value(-1.5) == -1.5 and csv_value("x=1") == "x=1"


def test_a_label_that_begins_like_an_option_of_a_line_break_is_none_in_latex() -> None:
    cells = tuple(cell.model_copy(update={"label": "[2cm] x"}) for cell in GRID.cells)
    grid = GRID.model_copy(update={"cells": cells})
    labels = EMBEDDED.model_copy(update={"labels": ("*x [y]", "IS")})
    latex = to_latex([make_table(summaries([make_record(grid, "eps-mse-fixed", extractor=labels)], grid)[0])], "t")
    assert not re.search(r"\\\\\s*[\[*]", latex) and "{}[2cm] x" in latex


def test_a_number_without_a_logarithm_is_said_where_records_are_compared() -> None:
    records = [make_record(GRID, "eps-mse-fixed", seed) for seed in (0, 1)]
    checkpoint = records[0].final
    bad = checkpoint.model_copy(update={"metrics": checkpoint.metrics | {"fd_train": -1.0}})
    with pytest.raises(UserError, match="fd_train"):
        repeats([records[0].model_copy(update={"checkpoints": (bad,)})], records)


@pytest.mark.filterwarnings("ignore")
def test_infinite_numbers_cost_their_own_figures_and_nothing_else(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", logger="ddpm_bench")
    record = make_record(GRID, "eps-mse-fixed", overrides=SMALL)
    numbers = dict.fromkeys(record.final.metrics, float("inf")) | {"precision": 0.5, "recall": 0.5}
    checkpoint = record.final.model_copy(update={"metrics": numbers, "quantiles": {}})
    write_results(tmp_path / "results", [record.model_copy(update={"checkpoints": (checkpoint,)})])
    render(
        [read_record(tmp_path / "results" / "eps-mse-fixed-seed0.json")], GRID, tmp_path / "out", tmp_path / "results"
    )
    assert (
        "'Distance, measured and published' cannot be drawn" in caplog.text
        or (tmp_path / "out" / "distance.png").exists()
    )
    assert (tmp_path / "out" / "loss.png").exists() and (tmp_path / "out" / "report.html").exists()
