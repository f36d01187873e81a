"""Records: what is written is read back, and what is none is refused with its path."""

import json

import pytest
from records import make_record

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.records.record import SCHEMA, read_record, read_records, record_path, write_record


def record(cell="eps-mse-fixed", seed=0):
    return make_record(load_grid("table2"), cell, seed)


def test_a_record_reads_back_as_it_was_written(tmp_path):
    original = record(cell="eps-mse-fixed", seed=3)
    path = write_record(tmp_path, original)
    assert path == record_path(tmp_path, "eps-mse-fixed", 3)
    assert read_record(path) == original
    assert read_records(tmp_path) == [original]


def test_what_records_hold_alike_is_read_once_and_what_differs_is_not_mixed_up(tmp_path):
    others = {"training": {"warmup": 7}}
    originals = [record(seed=0), record(seed=1), make_record(load_grid("table2"), "eps-mse-fixed", 2, overrides=others)]
    for original in originals:
        write_record(tmp_path, original)
    first, second, other = read_records(tmp_path)
    assert [first, second, other] == originals
    assert first.settings is second.settings and first.data is second.data and first.extractor is second.extractor
    assert other.settings != first.settings and other.data is first.data


def test_where_data_lies_on_a_machine_is_no_part_of_a_record(tmp_path):
    one = record()
    data = one.settings.data.model_copy(update={"root": tmp_path})
    settings = one.settings.model_copy(update={"data": data})
    assert str(tmp_path) not in write_record(tmp_path, one.model_copy(update={"settings": settings})).read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content | {"schema_version": SCHEMA + 1}, "Install a newer ddpm-bench"),
        (lambda content: content | {"outcome": "fine"}, "outcome"),
        (lambda content: {k: v for k, v in content.items() if k != "settings"}, "settings"),
        (lambda content: [content], "not a record"),
    ],
)
def test_what_is_no_record_is_refused_with_its_path(tmp_path, change, said):
    path = write_record(tmp_path, record())
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=said) as error:
        read_record(path)
    assert str(path) in str(error.value)


def test_a_truncated_record_is_refused(tmp_path):
    path = write_record(tmp_path, record())
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match="not a record of ddpm-bench"):
        read_record(path)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="no results folder"):
        read_records(tmp_path / "none")
    with pytest.raises(UserError, match="holds no records"):
        read_records(tmp_path)
    with pytest.raises(UserError, match="no record at"):
        read_record(tmp_path / "none.json")


def test_bounds_of_the_first_schema_are_read_as_exact_ones():
    old = {"split": "test", "images": 4, "total": 6.5, "standard_error": 0.1, "prior": 0.5, "terms": [3.0, 2.0, 1.0]}
    bound = BoundTerms.model_validate(old)
    assert (bound.method, bound.evals, bound.first, bound.middle, bound.mse) == ("exact", 3, 3.0, 3.0, ())
    assert bound.prior + bound.middle + bound.first == bound.total


def test_the_interval_of_a_bound_holds_95_percent():
    [bound, _] = record().bounds
    low, high = bound.interval
    assert low == pytest.approx(bound.total - 1.96 * bound.standard_error, abs=1e-4)
    assert high - bound.total == pytest.approx(bound.total - low)


def test_the_best_checkpoint_is_the_one_of_the_lowest_distance_and_apart_from_the_last():
    one = record()
    first = one.checkpoints[0]
    metrics = first.metrics | {"fd_train": first.metrics["fd_train"] / 2}
    better = first.model_copy(update={"step": 1, "metrics": metrics})
    both = one.model_copy(update={"checkpoints": (better, first)})
    assert both.best == better and both.last == first


def test_records_without_intervals_pictures_and_neighbours_are_read(tmp_path):
    path = write_record(tmp_path, record())
    content = json.loads(path.read_text())
    del content["pictures"], content["neighbours"]
    for part in (*content["checkpoints"], *content["bounds"]):
        del part["quantiles"]
    del content["settings"]["scoring"]["bootstrap"], content["settings"]["scoring"]["neighbours"]
    path.write_text(json.dumps(content))
    old = read_record(path)
    assert old.last.quantiles == old.pictures == old.neighbours == {}
    assert old.bounds[0].quantiles == ()


def test_a_number_that_is_not_finite_is_shown_as_strict_json(call, tmp_path):
    one = record()
    bound = one.bounds[0].model_copy(update={"standard_error": float("nan")})
    write_record(tmp_path / "results", one.model_copy(update={"bounds": (bound, *one.bounds[1:])}))
    done = call("report", "--results", tmp_path / "results", "--reports", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["bounds"][0]["standard_error"] == "NaN"
