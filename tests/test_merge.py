"""Merging: every record and picture once, nothing overwritten, and a conflict leaves everything as it was."""

from pathlib import Path

import pytest
from PIL import Image
from records import make_record, write_results
from typer.testing import CliRunner

from ddpm_bench.cli import app
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.records.merge import merge
from ddpm_bench.records.record import Record, read_records, write_record

GRID = load_grid("table2")


def folder(path: Path, *cells_and_seeds: tuple[str, int]) -> list[Record]:
    records = [make_record(GRID, cell, seed) for cell, seed in cells_and_seeds]
    write_results(path, records)
    return records


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()} if path.exists() else {}


def test_records_and_pictures_of_all_folders_come_together(tmp_path: Path) -> None:
    ones = folder(tmp_path / "a", ("mu-L-fixed", 0), ("mu-L-fixed", 1))
    others = folder(tmp_path / "b", ("eps-L-fixed", 0))
    made = merge(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    assert sorted(read_records(tmp_path / "out"), key=str) == sorted([*ones, *others], key=str)
    assert contents(tmp_path / "out") == contents(tmp_path / "a") | contents(tmp_path / "b")
    assert len(contents(tmp_path / "out")) == 3 * (1 + 4) and made[0].name == "mu-L-fixed-seed0.json"


def test_merging_again_changes_nothing_and_adds_what_is_new(tmp_path: Path) -> None:
    folder(tmp_path / "a", ("mu-L-fixed", 0))
    merge(tmp_path / "out", [tmp_path / "a"])
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    folder(tmp_path / "b", ("mu-L-fixed", 0), ("mu-L-fixed", 1))
    assert [path.name for path in merge(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])] == [
        "mu-L-fixed-seed1.json"
    ]
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}.items()


def refused(tmp_path: Path, match: str) -> str:
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match=match) as error:
        merge(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    assert contents(tmp_path / "out") == before and "Nothing was merged" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("held", [False, True], ids=["between sources", "with what is there"])
def test_two_records_of_one_cell_and_seed_that_differ_are_refused_with_the_difference(
    tmp_path: Path, held: bool
) -> None:
    [record] = folder(tmp_path / "a", ("mu-L-fixed", 0))
    folder(tmp_path / "b", ("eps-L-fixed", 0))
    write_record(
        tmp_path / ("out" if held else "b"), record.model_copy(update={"created": "2027-01-01T00:00:00+00:00"})
    )
    said = refused(tmp_path, "same cell and seed and differ")
    assert "created: was " in said and "2027-01-01" in said


def test_other_conditions_are_refused_with_the_difference(tmp_path: Path) -> None:
    folder(tmp_path / "a", ("mu-L-fixed", 0))
    write_results(tmp_path / "b", [make_record(GRID, "eps-L-fixed", overrides={"training": {"steps": 500}})])
    assert "training.steps: was 400, now 500" in refused(tmp_path, "different conditions")


def test_another_grid_is_refused(tmp_path: Path) -> None:
    folder(tmp_path / "a", ("mu-L-fixed", 0))
    write_results(tmp_path / "b", [make_record(load_grid("table1"), "eps-L-fixed")])
    assert "grid: was table2, now table1" in refused(tmp_path, "different conditions")


def test_a_picture_never_replaces_another(tmp_path: Path) -> None:
    folder(tmp_path / "a", ("mu-L-fixed", 0))
    folder(tmp_path / "b", ("eps-L-fixed", 0))
    (tmp_path / "out").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "out" / "eps-L-fixed-seed0.png")
    refused(tmp_path, "eps-L-fixed-seed0.png' is there already")


def test_a_picture_that_is_missing_or_a_link_or_none_is_said_and_not_copied(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", logger="ddpm_bench")
    names = {"progressive": "no.png", "neighbours-pixel": "text.png"}
    record = make_record(GRID, "mu-L-fixed").model_copy(update={"sample_grid": "link.png", "pictures": names})
    write_record(tmp_path / "a", record)
    (tmp_path / "secret.txt").write_text("a secret")
    (tmp_path / "a" / "text.png").write_text("a secret")
    (tmp_path / "a" / "link.png").symlink_to(tmp_path / "secret.txt")
    merge(tmp_path / "out", [tmp_path / "a"])
    for said in ("'link.png' is a link", "'no.png' is missing", "'text.png' is not a PNG"):
        assert said in caplog.text
    assert list(contents(tmp_path / "out")) == ["mu-L-fixed-seed0.json"]


def test_a_record_appears_only_after_its_pictures(tmp_path: Path, monkeypatch) -> None:
    folder(tmp_path / "a", ("mu-L-fixed", 0))
    order: list[str] = []
    monkeypatch.setattr("ddpm_bench.records.merge._copy", lambda source, target: order.append(target.suffix))
    merge(tmp_path / "out", [tmp_path / "a"])
    assert order == [".png"] * 4 + [".json"]


def test_a_folder_that_is_none_or_is_empty_and_a_broken_record_are_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results folder"):
        merge(tmp_path / "out", [tmp_path / "none"])
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="holds no records"):
        merge(tmp_path / "out", [tmp_path / "a"])
    (tmp_path / "a" / "x-seed0.json").write_text("{")
    with pytest.raises(UserError, match="x-seed0"):
        merge(tmp_path / "out", [tmp_path / "a"])
    assert not (tmp_path / "out").exists()


def test_the_command_names_the_new_records(tmp_path: Path) -> None:
    folder(tmp_path / "a", ("mu-L-fixed", 0))
    answer = CliRunner().invoke(app, ["merge", str(tmp_path / "out"), str(tmp_path / "a")])
    assert answer.exit_code == 0 and str(tmp_path / "out" / "mu-L-fixed-seed0.json") in answer.stdout
