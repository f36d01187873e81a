"""`ablate --ckpt`: the cells of a grid of samplers measured of one checkpoint, as rows; what a checkpoint decides is refused."""

import json
from types import SimpleNamespace

import pytest
from test_report_checkpoints import make_row
from tiny_models import tiny_checkpoint, tiny_data, tiny_preset

from ddpm_bench.config.preset import load_preset, resolve, resolve_sampling
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import ScoringSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.experiment import sample_grid
from ddpm_bench.experiment.sample_grid import SampledCell, along, otherwise
from ddpm_bench.models.model import load_model
from ddpm_bench.records.record import read_record
from ddpm_bench.records.row import Row, read_rows
from ddpm_bench.report.figures.rows_across import draw_rows

GRID = """
name = "steps"
title = "Steps and samplers"
source = "nothing is published"
across = "sampling.steps"

[conditions]
data = "cifar10"
size = 32
samples = 50000
extractor = "inception"

[settings.diffusion]
parameterization = "eps"
objective = "L_simple"
variance = "fixed"

[settings.scoring]
neighbours = 0
{common}

[[cell]]
name = "two"
group = "2"
label = "ancestral"
settings = {{ sampling = {{ steps = 2, sampler = "ancestral" }} }}
published = {{}}

[[cell]]
name = "ddim"
group = "S"
label = "DDIM"
settings = {{ sampling = {{ steps = {steps}, sampler = "ddim", eta = 0.0, clip_x0 = false }}{more} }}
published = {{}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint, a data set for it, a small preset, and a cache."""
    folder = tmp_path_factory.mktemp("sample-grid")
    ckpts = {
        "eps": tiny_checkpoint(folder / "eps"),
        "mu": tiny_checkpoint(folder / "mu", parameterization="mu", variance="learned"),
    }
    return folder, ckpts, tiny_data(folder / "data.npz")


@pytest.fixture
def ablate(call, place, tmp_path):
    """`ablate` on a grid of two samplers, into tmp_path / "rows"."""
    folder, _, data = place

    def run(*more, common="", steps=3, extra=""):
        grid = tmp_path / "steps.toml"
        grid.write_text(GRID.format(common=common, steps=steps, more=extra))
        return call(
            "ablate", "--grid", grid, "--preset", tiny_preset(folder, data), "--results", tmp_path / "rows", "--device", "cpu",
            "--cache", folder / "cache", *more,
        )  # fmt: skip

    return run


def test_every_cell_is_a_row_with_its_sampler(ablate, place, tmp_path):
    _, ckpts, data = place
    answer = ablate("--ckpt", ckpts["eps"], "--data", data, "--json")
    assert answer.code == 0, answer.err
    rows = {row.name: row for row in read_rows(tmp_path / "rows")}
    assert [Row.model_validate(one) for one in json.loads(answer.out)] == [rows["eps-two"], rows["eps-ddim"]]
    told = {name: (row.setup.sampler, row.setup.sampling_steps, row.setup.clip_x0) for name, row in rows.items()}
    assert told == {"eps-two": ("ancestral", 2, True), "eps-ddim": ("ddim", 3, False)}
    assert rows["eps-ddim"].setup.sampler_options["eta"] == 0.0
    assert {row.setup.samples for row in rows.values()} == {12} and all(row.bounds for row in rows.values())
    assert "eps-ddim" in (tmp_path / "rows" / "table.md").read_text()
    assert (tmp_path / "rows" / "figures" / "distance.png").exists() and "figures/distance.png" in answer.err
    assert not list(tmp_path.rglob("step-*"))  # nothing was trained


def test_rows_lie_along_the_axis_by_label_where_their_cells_ran(tmp_path):
    rows = [make_row(name=f"eps-{cell}", network_calls=calls) for cell, calls in (("two", 2), ("ddim", 3), ("old", 9))]
    sampling, scoring = SamplingSettings(guidance=1.5), ScoringSettings()
    planned = [
        SampledCell(f"eps-{name}", SimpleNamespace(label="L"), sampling, scoring, ())
        for name in ("two", "ddim", "three")
    ]
    assert along("sampling.steps", planned, rows) == {"L": [(2.0, rows[0]), (3.0, rows[1])]}
    assert [at for at, _ in along("sampling.guidance", planned, rows)["L"]] == [1.5, 1.5]
    assert draw_rows("sampling.guidance", along("sampling.guidance", planned, rows), tmp_path / "none.png") is None


def test_a_checkpoint_of_the_grid_itself_has_the_numbers_of_its_records(ablate, tmp_path):
    made = ablate("--no-report", "--workers", "1", "--results", tmp_path / "records")
    assert made.code == 0, made.err
    [trained] = (tmp_path / "records" / "work" / "trained").iterdir()
    answer = ablate("--ckpt", trained)
    assert answer.code == 0, answer.err
    rows = {row.name: row for row in read_rows(tmp_path / "rows")}
    for cell in ("two", "ddim"):
        record, row = read_record(tmp_path / "records" / f"{cell}-seed0.json"), rows[f"{trained.name}-{cell}"]
        assert row.metrics == record.final.metrics and row.setup.sampling_remarks == record.sampling_remarks
        assert row.anchors == record.anchors


def test_the_same_command_again_measures_nothing_and_one_cell_may_be_asked_for(ablate, place, monkeypatch, tmp_path):
    _, ckpts, data = place
    assert ablate("--ckpt", ckpts["eps"], "--data", data, "--cells", "two").code == 0
    assert [row.name for row in read_rows(tmp_path / "rows")] == ["eps-two"]
    monkeypatch.setattr("ddpm_bench.measurement.evaluate.measure", lambda *_: pytest.fail("measured again"))
    answer = ablate("--ckpt", ckpts["eps"], "--data", data, "--cells", "two")
    assert answer.code == 0 and "measured already" in answer.err
    changed = ablate("--ckpt", ckpts["eps"], "--data", data, "--cells", "two", "--set", "sampling.samples=13")
    assert changed.code == 2 and "samples: was 12, now 13" in changed.err


def test_a_checkpoint_of_another_kind_is_said_in_the_rows_and_the_table(ablate, place, tmp_path):
    _, ckpts, data = place
    answer = ablate("--ckpt", ckpts["mu"], "--data", data, "--cells", "two")
    assert answer.code == 0, answer.err
    [row] = read_rows(tmp_path / "rows")
    said = "parameterization is mu where the grid has eps"
    assert said in row.setup.sampling_remarks and said in answer.err
    assert f"mu-two: {said}" in (tmp_path / "rows" / "table.md").read_text()
    assert "variance is learned where the grid has fixed" in row.setup.sampling_remarks


def test_fixed_variances_are_alike_and_what_is_not_known_is_said(place):
    cell = load_grid("ddim-cifar10").cells[0]
    model = load_model(place[1]["eps"])
    assert otherwise(cell, model) == ("objective is not known where the grid has L_simple",)
    process = model.process.model_copy(update={"variance": "fixed-beta-tilde"})
    other = model.__class__(**{**model.__dict__, "process": process})
    assert not any("variance" in remark for remark in otherwise(cell, other))


def test_one_cell_that_fails_costs_no_other(ablate, place, monkeypatch, tmp_path):
    _, ckpts, data = place
    measure = sample_grid.evaluate

    def failing(model, task, runtime, folder, name, *more):
        if name == "eps-two":
            raise sample_grid.NotFinite("samples are no numbers")
        return measure(model, task, runtime, folder, name, *more)

    monkeypatch.setattr(sample_grid, "evaluate", failing)
    answer = ablate("--ckpt", ckpts["eps"], "--data", data)
    assert answer.code == 1 and "eps-two: FAILED: samples are no numbers" in answer.err
    assert [row.name for row in read_rows(tmp_path / "rows")] == ["eps-ddim"]


@pytest.mark.parametrize(
    ("arguments", "grid", "said"),
    [
        (["--seeds", "0,1"], {}, "--seeds 0,1"),
        (["--workers", "2"], {}, "--workers does not go with --ckpt"),
        (["--dry-run"], {}, "--dry-run does not go with --ckpt"),
        (["--set", "training.steps=5"], {}, "--set training.steps is the checkpoint's own"),
        (["--set", "sampling.smaples=5"], {}, "unknown key 'smaples'; did you mean 'samples'"),
        (["--set", "sampling.eta=0.5"], {}, "sampling.eta is an axis of the grid"),
        ([], {"steps": 7}, "Cell 'ddim': --steps 7 exceeds the 6 steps"),
        ([], {"extra": ", training = { steps = 7 }"}, "differ in training.steps, which a checkpoint has one of"),
        ([], {"common": 'bound_of = "sampled chain"'}, "the bound of the sampled chain"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sampled(
    ablate, place, monkeypatch, tmp_path, arguments, grid, said
):
    _, ckpts, data = place
    monkeypatch.setattr("ddpm_bench.measurement.evaluate.measure", lambda *_: pytest.fail("measured"))
    answer = ablate("--ckpt", ckpts["eps"], "--data", data, *arguments, **grid)
    assert answer.code == 2 and said in " ".join(answer.err.split()), answer.err
    assert not (tmp_path / "rows").exists()


def test_raw_weights_are_those_of_a_checkpoint(ablate):
    answer = ablate("--raw")
    assert answer.code == 2 and "--raw goes with --ckpt alone" in answer.err


def test_sampling_and_scoring_are_resolved_as_for_a_training():
    for cell in load_grid("ddim-cifar10").select(None, "quick"):
        whole = resolve(cell, load_preset("quick"), {})
        assert resolve_sampling(cell, load_preset("quick"), {}) == (whole.sampling, whole.scoring)
