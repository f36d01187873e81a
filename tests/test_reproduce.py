"""`reproduce`: a record measured again is bitwise itself, or what differs too much is said; other data are refused."""

import json
import random
import shutil

import pytest
from records import make_record

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.experiment.reproduce import FREEDOM, job_of, judge, siblings, verdict_table
from ddpm_bench.records.record import Divergence, read_record, write_record

GRID = load_grid("table2")
CELLS = [cell.name for cell in GRID.cells]


def plain(record):
    """The record without a bootstrap of its own."""
    checkpoints = tuple(each.model_copy(update={"quantiles": {}}) for each in record.checkpoints)
    return record.model_copy(update={"checkpoints": checkpoints})


def changed(record, quantiles=None, **metrics):
    """The record with other scores, and with these quantiles where given."""
    last = record.last
    update = {"metrics": last.metrics | metrics} | ({} if quantiles is None else {"quantiles": quantiles})
    return record.model_copy(update={"checkpoints": (last.model_copy(update=update),)})


def within(verdict):
    return {finding.name: finding.within for finding in verdict.findings}


# ---- the verdict ----------------------------------------------------------------------------------------------------


def test_equal_numbers_are_said_to_be_bitwise_the_same():
    record = make_record(GRID, "eps-mse-fixed")
    verdict = judge(record, record, [record])
    assert verdict.holds and verdict.identical and verdict.others == ()
    assert {finding.allowed for finding in verdict.findings} == {"equal"}
    slower = record.model_copy(update={"training_log": record.training_log[:-1]})
    assert judge(slower, record, [record]).holds and not judge(slower, record, [record]).identical


def test_shown_digits_decide_where_a_record_has_neither_seeds_nor_a_bootstrap():
    record = plain(make_record(GRID, "eps-mse-fixed"))
    close = judge(changed(record, fd_train=record.last.metrics["fd_train"] + 0.001), record, [record])
    assert close.tolerance == "digits" and close.holds and not close.identical
    assert "equal as shown" in {finding.allowed for finding in close.findings}
    far = judge(changed(record, fd_train=record.last.metrics["fd_train"] + 0.01), record, [record])
    assert not far.holds and within(far)["FD (embedded)"] is False and within(far)["IS (embedded)"] is True


def test_the_records_own_quantiles_decide_where_seeds_are_too_few():
    quantiles = {"fd_train": (30.0, 31.0, 33.0, 35.0, 36.0)}
    record = changed(make_record(GRID, "eps-mse-fixed"), quantiles)
    for value, holds in ((30.5, True), (35.9, True), (29.9, False), (36.1, False)):
        verdict = judge(changed(record, fd_train=value), record, [record, make_record(GRID, "eps-mse-fixed", 1)])
        assert verdict.tolerance == "quantiles" and verdict.holds is holds
    # A number that has no interval is shown and not judged.
    verdict = judge(changed(record, precision=0.1), record, [record])
    assert verdict.holds and within(verdict)["precision"] is None


def test_the_spread_over_seeds_of_all_cells_decides_where_there_is_one():
    beside = [make_record(GRID, cell, seed) for cell in CELLS for seed in (0, 1, 2)]
    record = next(each for each in beside if each.cell == "eps-mse-fixed" and each.seed == 0)
    near = judge(changed(record, fd_train=record.last.metrics["fd_train"] * 1.05), record, beside)
    assert near.tolerance == "seeds" and near.holds and not near.identical
    far = judge(changed(record, fd_train=record.last.metrics["fd_train"] * 1.5), record, beside)
    assert not far.holds and within(far)["FD (embedded)"] is False
    # Three seeds of one cell alone: a limit that nearly everything passes is not taken for a test.
    alone = [each for each in beside if each.cell == "eps-mse-fixed"]
    assert len(alone) - 1 < FREEDOM and judge(far_from(record), plain(record), alone).tolerance == "digits"


def far_from(record):
    return changed(record, fd_train=2 * record.last.metrics["fd_train"])


def test_correct_runs_rarely_fail_the_test_on_seeds():
    draw, failed, runs = random.Random(0), 0, 300
    template = {(cell, seed): make_record(GRID, cell, seed) for cell in CELLS for seed in (0, 1, 2)}

    def another(record):
        scales = {"is_mean": 0.05, "fd_train": 0.1, "precision": 0.05, "recall": 0.05, "bound_test_bits_per_dim": 0.01}
        level = template[record.cell, 0].last.metrics
        return changed(record, **{key: level[key] * (1 + draw.gauss(0, scale)) for key, scale in scales.items()})

    for _ in range(runs):
        beside = [another(record) for record in template.values()]
        record = next(each for each in beside if each.cell == "eps-mse-fixed" and each.seed == 0)
        failed += not judge(another(record), record, beside).holds
    assert failed <= 0.01 * runs + 3  # at most one in a hundred


def test_the_outcome_must_come_out_too():
    done = make_record(GRID, "mu-L-fixed")
    diverged = make_record(GRID, "mu-L-fixed", diverged=Divergence(step=9, reason="the loss is not finite"))
    assert not judge(diverged, done, [done]).holds and not judge(done, diverged, [diverged]).holds
    again = judge(diverged, diverged, [diverged])
    assert again.holds and again.identical
    assert [(finding.measured, finding.recorded) for finding in again.findings] == [("diverged at step 9",) * 2]


def test_other_versions_machine_and_commit_are_listed():
    record = make_record(GRID, "eps-mse-fixed")
    other = record.model_copy(update={
        "versions": record.versions | {"torch": "9.9"}, "hardware": record.hardware | {"cores": 64},
        "git_commit": "fff",
    })  # fmt: skip
    assert judge(other, record, [record]).others == (
        f"  commit: was {record.git_commit}, now fff", "  hardware.cores: was 2, now 64",
        "  versions.torch: was 2.15.0, now 9.9",
    )  # fmt: skip


def test_the_table_shows_what_failed_first():
    record = plain(make_record(GRID, "eps-mse-fixed"))
    table = verdict_table(judge(changed(record, recall=0.1), record, [record]))
    assert "NOT within tolerance" in table.title and next(table.columns[0].cells) == "recall"


def test_siblings_are_those_measured_alike(tmp_path, caplog):
    caplog.set_level("INFO", logger="ddpm_bench")
    record = make_record(GRID, "eps-mse-fixed")
    path = write_record(tmp_path, record)
    other_seed, other_cell = make_record(GRID, "eps-mse-fixed", 1), make_record(GRID, "mu-L-fixed")
    unlike = make_record(GRID, "mu-L-learned", overrides={"training": {"steps": 7}})
    for each in (other_seed, other_cell, unlike):
        write_record(tmp_path, each)
    (tmp_path / "eps-L-fixed-seed0.json").write_text("broken")
    assert siblings(path, record) == [record, other_seed, other_cell]
    assert "eps-L-fixed-seed0.json" in caplog.text


def test_the_job_is_the_records_own_wherever_its_files_lie(tmp_path):
    record = make_record(GRID, "eps-mse-fixed", 3)
    job = job_of(record)
    assert (job.name, job.settings, job.grid, job.preset) == ("eps-mse-fixed-seed3", record.settings, "table2", "quick")
    elsewhere = job_of(record, "folder:/here", "/mine.safetensors", tmp_path).settings
    assert (elsewhere.data.source, elsewhere.data.name, elsewhere.data.root) == (
        "folder:/here",
        record.data.name,
        tmp_path,
    )
    assert elsewhere.scoring.extractor == "/mine.safetensors"
    assert elsewhere.training == record.settings.training


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(small_run, tmp_path):
    """A record of the small run, alone, in a folder that may be written to."""
    path = tmp_path / "kept" / "eps-mse-fixed-seed0.json"
    path.parent.mkdir()
    shutil.copy(small_run.results / path.name, path)
    return path


def test_a_record_of_this_machine_comes_out_bitwise_and_a_wrong_one_is_noticed(call, small_run, copied, tmp_path):
    command = ("reproduce", copied, "--out", tmp_path / "again", "--cache", small_run.results.parent / "cache")
    answer = call(*command)
    assert answer.code == 0 and "bitwise the same" in answer.out
    was, now = read_record(copied), read_record(tmp_path / "again" / copied.name)
    assert (was.checkpoints, was.bounds, was.training_log, was.settings) == (
        now.checkpoints, now.bounds, now.training_log, now.settings,
    )  # fmt: skip
    content = json.loads(copied.read_text())
    content["checkpoints"][-1]["metrics"]["fd_train"] *= 2
    content["checkpoints"][-1]["quantiles"] = {}
    content["versions"]["torch"] = "1.0"
    copied.write_text(json.dumps(content))
    answer = call(*command, "--json")  # what is measured already is not measured again
    assert answer.code == 1 and "measured already" in answer.err and "versions.torch: was 1.0" in answer.err
    verdict = json.loads(answer.out)
    assert verdict["holds"] is False and verdict["identical"] is False
    assert [finding["name"] for finding in verdict["findings"] if finding["within"] is False] == ["FD (embedded)"]


@pytest.mark.parametrize(
    ("part", "said"), [("data", "The data are not what"), ("extractor", "The extractor is not what")]
)
def test_other_data_or_another_extractor_are_refused_before_anything_is_written(call, copied, tmp_path, part, said):
    content = json.loads(copied.read_text())
    content[part]["sha256"] = "0" * 64
    copied.write_text(json.dumps(content))
    answer = call("reproduce", copied, "--out", tmp_path / "again")
    assert answer.code == 2 and said in answer.err and f"sha256: was {'0' * 64}" in answer.err
    assert not (tmp_path / "again").exists()


def test_what_is_no_record_or_would_be_overwritten_is_refused(call, copied, tmp_path):
    assert "no record at" in call("reproduce", tmp_path / "none.json").err
    answer = call("reproduce", copied, "--out", copied.parent)
    assert answer.code == 2 and "choose another" in answer.err


def test_help_has_an_example(call):
    assert "Example: ddpm-bench reproduce results/" in " ".join(call("reproduce", "--help").out.split())
