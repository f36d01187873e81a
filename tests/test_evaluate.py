"""`evaluate --ckpt`: rows that say what they are, resumed, refused when measured otherwise, and their tables."""

import csv
import json

import pytest
from tiny_models import tiny_checkpoint, tiny_data

from ddpm_bench.config.settings import DataSettings
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.measurement import measure as measuring
from ddpm_bench.measurement.evaluate import SAMPLES, row_name
from ddpm_bench.models.model import load_model
from ddpm_bench.records.row import Row, check_name, read_rows
from ddpm_bench.report.checkpoint_rows import make_tables, to_csv
from ddpm_bench.report.writers.markdown import to_markdown

HEADINGS = (
    "IS (embedded) ↑", "IS (embedded), std", "FD (embedded) ↓", "KD (embedded) ↓", "KD (embedded), std", "precision ↑",
    "recall ↑",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two checkpoints, a data set, and the arguments that evaluate the first in little time."""
    folder = tmp_path_factory.mktemp("evaluate")
    ckpts = {
        "eps": tiny_checkpoint(folder / "eps"),
        "mu": tiny_checkpoint(folder / "mu", parameterization="mu", variance="learned", weights="unknown"),
    }
    return folder, ckpts, tiny_data(folder / "data.npz")


@pytest.fixture
def evaluate(call, place, tmp_path):
    """Evaluate one of the two checkpoints into tmp_path / "rows"."""
    folder, ckpts, data = place

    def run(name, *more):
        return call(
            "evaluate", "--ckpt", ckpts[name], "--data", data, "--results", tmp_path / "rows", "--count", 16,
            "--bound-images", 4, "--evals", 5, "--device", "cpu", "--cache", folder / "cache", *more,
        )  # fmt: skip

    return run


def rows(tmp_path) -> dict[str, Row]:
    return {row.name: row for row in read_rows(tmp_path / "rows")}


def kept_bounds(tmp_path) -> set[tuple[str, float]]:
    """Pieces of bounds, and when they were written."""
    return {(str(path), path.stat().st_mtime) for path in (tmp_path / "rows" / "work").glob("*/bound-*/*.safetensors")}


def test_a_row_says_what_was_measured_and_how(evaluate, place, tmp_path):
    answer = evaluate("mu", "--steps", 3, "--test-reference", "--json")
    assert answer.code == 0, answer.err
    row = rows(tmp_path)["mu"]
    assert Row.model_validate(json.loads(answer.out)) == row
    model = row.setup.model
    assert (model.weights, model.step, model.predicts, model.variance) == ("unknown", None, "mu", "learned")
    assert (model.schedule, model.T, row.setup.sampling_steps, row.setup.clip_x0) == ("linear", 6, 3, True)
    network = load_model(place[1]["mu"]).network
    assert model.parameters == sum(p.numel() for p in network.parameters())
    assert model.weights_sha256 == model.identity["weights_sha256"] and len(model.weights_sha256) == 64
    assert row.setup.extractor.verified and row.setup.samples == 16
    assert {"is_mean", "fd_train", "fd_test", "kid_mean", "precision", "recall"} <= set(row.metrics)
    assert [(b.split, b.method, b.evals, b.images) for b in row.bounds] == [
        ("test", "estimate", 5, 4),
        ("train", "estimate", 5, 4),
    ]
    assert row.metrics["bound_test_bits_per_dim"] == row.bounds[0].total
    assert set(row.anchors) == {"held-out real", "blurred", "uniform noise"}
    assert {"ddpm-bench", "torch"} <= set(row.versions) and row.hardware["device"] == "cpu"
    assert (tmp_path / "rows" / row.sample_grid).read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "rows").rglob(".*"))


def test_the_samples_and_scores_are_those_of_sample_and_evaluate_samples(evaluate, call, place, tmp_path):
    folder, ckpts, data = place
    evaluate("eps")
    call("sample", "--ckpt", ckpts["eps"], "--samples", 16, "--out", tmp_path / "s.npz", "--device", "cpu")
    alone = call(
        "evaluate",
        "--samples",
        tmp_path / "s.npz",
        "--data",
        data,
        "--device",
        "cpu",
        "--cache",
        folder / "cache",
        "--json",
    )
    row, scores = rows(tmp_path)["eps"], json.loads(alone.out)
    assert {key: row.metrics[key] for key in scores["metrics"]} == scores["metrics"]
    assert row.anchors == scores["anchors"]


def test_the_bound_is_that_of_the_whole_chain_and_may_be_exact(evaluate, tmp_path):
    evaluate("eps", "--steps", 2, "--name", "few")
    before = kept_bounds(tmp_path)
    evaluate("eps", "--name", "all")
    found = rows(tmp_path)
    assert found["few"].bounds == found["all"].bounds and kept_bounds(tmp_path) == before  # measured once
    evaluate("eps", "--name", "all", "--fresh")
    assert rows(tmp_path)["all"].bounds == found["few"].bounds and kept_bounds(tmp_path) > before
    answer = evaluate("eps", "--name", "many", "--evals", 6)
    assert rows(tmp_path)["many"].bounds[0].method == "exact" and rows(tmp_path)["many"].setup.evals is None
    assert "exact, every t" in answer.out
    assert evaluate("eps", "--bound-images", 0, "--name", "none").code == 0
    assert rows(tmp_path)["none"].bounds == ()


def test_the_likelihood_by_the_ode_is_measured_where_it_is_asked_for_beside_the_bound(evaluate, tmp_path):
    answer = evaluate("eps", "--ode-images", 4)
    assert answer.code == 0, answer.err
    row = rows(tmp_path)["eps"]
    assert (row.setup.ode_images, row.setup.ode_draws) == (row.ode.images, row.ode.draws) == (4, 2)
    assert row.metrics["ode_test_bits_per_dim"] == row.ode.total != row.metrics["bound_test_bits_per_dim"]
    [table] = make_tables([row])
    assert table.heads[-1] == "bits/dim (ODE), test ↓" and table.lines[0][-1].startswith(f"{row.ode.total:.2f}")
    assert any("of 4 images in 2 draws each" in remark and "no variational bound" in remark for remark in table.remarks)
    [line] = csv.DictReader(to_csv([row]).splitlines())
    assert line["ode_test_images"] == "4" and float(line["ode_test_bits_per_dim"]) == pytest.approx(row.ode.total)
    answer = evaluate("eps")
    assert answer.code == 2 and "ode_images: was 4, now 0" in answer.err


def test_a_row_of_an_older_version_has_no_likelihood_and_stays_valid(evaluate, tmp_path):
    evaluate("eps")
    path = tmp_path / "rows" / "eps.json"
    held = json.loads(path.read_text())
    held["setup"] = {key: value for key, value in held["setup"].items() if not key.startswith("ode_")}
    path.write_text(json.dumps(held))
    assert rows(tmp_path)["eps"].ode is None
    answer = evaluate("eps")
    assert answer.code == 0 and "measured already" in answer.err


def test_the_same_command_again_measures_nothing(evaluate, monkeypatch, tmp_path):
    evaluate("eps")
    before = (tmp_path / "rows" / "eps.json").read_bytes()
    monkeypatch.setattr("ddpm_bench.measurement.evaluate.measure", lambda *_: pytest.fail("measured again"))
    answer = evaluate("eps")
    assert answer.code == 0 and "measured already" in answer.err
    assert (tmp_path / "rows" / "eps.json").read_bytes() == before


def test_an_interrupted_evaluation_goes_on_with_its_samples_and_scores(evaluate, monkeypatch, tmp_path):
    def stopped(*_, **__):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "measure_bound", stopped)
        assert evaluate("eps").code == 130
    assert rows(tmp_path) == {}
    monkeypatch.setattr("ddpm_bench.measurement.samples.sample", lambda *_, **__: pytest.fail("sampled again"))
    monkeypatch.setattr(measuring, "scores", lambda *_, **__: pytest.fail("scored again"))
    assert evaluate("eps").code == 0
    assert rows(tmp_path)["eps"].bounds


def test_a_row_measured_otherwise_is_refused_with_the_differences_and_fresh_keeps_it(evaluate, tmp_path):
    evaluate("eps")
    old = (tmp_path / "rows" / "eps.json").read_bytes()
    for more, said in (
        (("--count", 17), "samples: was 16, now 17"),
        (("--evals", 6), "evals: was 5, now None"),
        (("--steps", 3), "sampling_steps: was 6, now 3"),
        (("--seed", 1), "seed: was 0, now 1"),
        (("--decoder", "paper"), "decoder: was exact, now paper"),
    ):
        answer = evaluate("eps", *more)
        assert answer.code == 2 and said in answer.err and "--fresh" in answer.err
    answer = evaluate("mu", "--name", "eps")
    assert answer.code == 2 and "model.predicts: was eps, now mu" in answer.err
    for refused in (("--bound-images", 1), ("--steps", 7)):  # before anything is set aside
        assert evaluate("eps", *refused, "--fresh").code == 2
    assert (tmp_path / "rows" / "eps.json").read_bytes() == old
    assert evaluate("eps", "--seed", 1, "--fresh").code == 0
    (kept,) = (tmp_path / "rows").glob("before-*/eps.json")
    assert kept.read_bytes() == old
    assert {path.name for path in kept.parent.iterdir()} == {"eps.json", "eps.png", "eps-progressive.png", "work"}
    assert rows(tmp_path)["eps"].setup.seed == 1


def test_rows_of_the_same_conditions_share_a_table_and_others_never(evaluate, tmp_path):
    evaluate("eps")
    evaluate("mu")
    evaluate("mu", "--count", 18, "--name", "mu-18")
    few, more = make_tables(read_rows(tmp_path / "rows"))
    assert [line[0] for line in few.lines] == ["eps", "mu"] and [line[0] for line in more.lines] == ["mu-18"]
    assert few.heads[5:12] == HEADINGS and not any("±" in field for line in few.lines for field in line)
    assert any("IS (embedded), std: over splits of one sample set; KD (emb" in remark for remark in few.remarks)
    assert not any(head.startswith(("FID", "IS ", "KID")) and "(embedded)" not in head for head in few.heads)
    assert few.title.startswith("16 samples against the 40 training images of data")
    assert any("KD (embedded) over 100 subsets of 8 images" in remark for remark in few.remarks)
    assert any("each of its 10 parts has 1 image" in remark for remark in few.remarks)
    written = (tmp_path / "rows" / "table.md").read_text()
    assert (
        written.count("## ") == 2 and "not known whether EMA" in written and "Not comparable with published" in written
    )
    with (tmp_path / "rows" / "table.csv").open() as stream:
        lines = {line["name"]: line for line in csv.DictReader(stream)}
    row = rows(tmp_path)["mu"]
    assert float(lines["mu"]["fd_train"]) == row.metrics["fd_train"]
    assert lines["mu"]["distance"] == "FD (embedded)" and lines["mu"]["weights"] == "unknown"
    assert lines["mu"]["weights_sha256"] == row.setup.model.weights_sha256
    assert lines["mu"]["bound_test_method"] == "estimate" and lines["mu"]["extractor_verified"] == "True"


def changed(row: Row, **setup) -> Row:
    return row.model_copy(update={"setup": row.setup.model_copy(update=setup)})


def test_tables_say_what_may_not_be_compared(evaluate, tmp_path):
    evaluate("eps")
    row = rows(tmp_path)["eps"]
    inception = row.setup.extractor.model_copy(update={"name": "inception", "labels": ("FID", "IS")})
    (published,) = make_tables([changed(row, extractor=inception, samples=50_000)])
    assert "FID ↓" in published.heads and not any("Not comparable" in remark for remark in published.remarks)
    (fewer,) = make_tables([changed(row, extractor=inception)])
    assert "published FIDs, which are of 50,000 samples" in fewer.remarks[0]
    doubtful = inception.model_copy(update={"verified": False})
    (unverified,) = make_tables([changed(row, extractor=doubtful, samples=50_000)])
    assert "UNVERIFIED" in unverified.title and "Not comparable" in unverified.remarks[0]
    raw = changed(row, model=row.setup.model.model_copy(update={"weights": "raw", "step": 1000})).model_copy(
        update={"name": "a|b", "git_commit": None}
    )
    text = to_markdown(make_tables([row, raw])[0].blocks)
    assert r"| a\|b | raw, not EMA, step 1,000 |" in text and "an installed package" in text
    other = row.setup.data.model_copy(update={"sha256": "0" * 64})
    assert len(make_tables([row, changed(row, data=other), changed(row, neighborhood=5)])) == 3
    assert to_csv([row, raw]).count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either --samples"),
        (["--ckpt", "CKPT", "--samples", "x"], "either --samples"),
        (["--samples", "x", "--count", "5"], "--count does not go with --samples"),
        (["--samples", "x", "--seed", "0"], "--seed does not go with --samples"),
        (["--ckpt", "CKPT", "--key", "a"], "--key does not go with --ckpt"),
        (["--ckpt", "CKPT", "--evals", "5", "--exact"], "either --evals"),
        (["--ckpt", "CKPT"], "not known what 'eps' was trained on"),
        (["--ckpt", "CKPT", "--data", "COLOUR"], "Choose another --data"),
        (["--ckpt", "CKPT", "--data", "DATA", "--name", "a/b"], "--name 'a/b'"),
        (["--ckpt", "CKPT", "--data", "DATA", "--count", "5"], "too few"),
        (
            ["--ckpt", "CKPT", "--data", "DATA", "--bound-images", "1"],
            "bound_images: 1 image gives a mean without an error",
        ),
        (["--samples", "x", "--ode-images", "4"], "--ode-images does not go with --samples"),
        (
            ["--ckpt", "CKPT", "--data", "DATA", "--ode-images", "1"],
            "ode_images: 1 image gives a mean without an error",
        ),
        (["--ckpt", "MU", "--data", "DATA", "--ode-images", "4"], "is learned for the variational bound"),
        (["--ckpt", "CKPT", "--data", "DATA", "--steps", "7"], "--steps 7 exceeds the 6"),
        (["--ckpt", "CKPT", "--data", "DATA", "--raw"], "without --raw"),
        (["--ckpt", "none", "--data", "DATA"], "no checkpoint"),
    ],
)
def test_a_mistake_is_said_before_anything_is_sampled(call, place, monkeypatch, tmp_path, arguments, said):
    _, ckpts, data = place
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "draw_samples", lambda *_, **__: pytest.fail("sampled"))
    given = {
        "CKPT": ckpts["eps"],
        "MU": ckpts["mu"],
        "DATA": data,
        "COLOUR": tiny_data(tmp_path / "colour.npz", channels=3),
    }
    answer = call(
        "evaluate", *(given.get(word, word) for word in arguments), "--device", "cpu", "--cache", tmp_path / "c"
    )
    assert answer.code == 2 and said in " ".join(answer.err.split()), answer.err
    assert not list(tmp_path.rglob("*.json*"))


def test_a_file_that_is_no_row_is_named(evaluate, tmp_path):
    (tmp_path / "rows").mkdir()
    for content, said in (("{", "not a row"), ("{}", "not a row"), ('{"schema_version": 9}', "Install a newer")):
        (tmp_path / "rows" / "x.json").write_text(content)
        with pytest.raises(UserError, match=said):
            read_rows(tmp_path / "rows")


def test_a_model_is_compared_with_what_it_was_trained_on_while_that_is_the_same(place, monkeypatch):
    from ddpm_bench.data import load_data
    from ddpm_bench.models.reference import reference_data

    _, ckpts, data = place
    model = load_model(ckpts["eps"])
    known = DataSettings(source=data, size=16)
    held = load_data(known)
    trained = model.__class__(**{**model.__dict__, "data": known, "identity": {"data_sha256": held.sha256}})
    assert reference_data(trained, None).sha256 == held.sha256
    assert reference_data(trained, None, name="mine").name == "mine"
    elsewhere = trained.__class__(**{**trained.__dict__, "identity": {"data_sha256": "0" * 64}})
    with pytest.raises(UserError, match="not what 'eps' was trained on any more"):
        reference_data(elsewhere, None)
    assert reference_data(elsewhere, data).sha256 == held.sha256


def test_names_and_defaults(place, call, monkeypatch, tmp_path):
    model = load_model(place[1]["eps"])
    assert row_name(model, None) == "eps"
    hub = model.__class__(**{**model.__dict__, "name": "google/ddpm-cifar10-32", "weights": "raw"})
    assert check_name(row_name(hub, None)) == "google-ddpm-cifar10-32-raw"
    asked = []

    def stopped(model, task, *_):
        asked.append(task.scoring)
        raise Interrupted

    monkeypatch.setattr("ddpm_bench.measurement.evaluate.measure", stopped)
    few = ("--data", place[2], "--results", tmp_path / "rows", "--count", 16, "--device", "cpu")
    assert call("evaluate", "--ckpt", place[1]["eps"], *few).code == 130
    assert SAMPLES["inception"] == 50_000 and asked[0].bound_evals == 10
