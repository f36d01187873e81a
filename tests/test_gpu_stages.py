"""Stages of `ddpm-bench gpu`: the commands of each, the goals that they measure, and an archive of what matters."""

import json
import os
import zipfile

import pytest
from conftest import parsed
from test_speed import result

from ddpm_bench.speed.gpu import archive
from ddpm_bench.speed.gpu.goals import goals
from ddpm_bench.speed.gpu.stages import STAGES, Plan, compiling_pays, fastest_together
from ddpm_bench.speed.report import write
from ddpm_bench.speed.result import Together

# ---- stages ----------------------------------------------------------------------------------------------------------


def test_shares_are_all_of_the_time() -> None:
    assert sum(stage.share for stage in STAGES.values()) == pytest.approx(1)


@pytest.mark.parametrize("device", ["cuda", "mps", "cpu"])
@pytest.mark.parametrize("name", STAGES)
def test_every_command_of_a_stage_exists_and_names_the_device(name, device, tmp_path) -> None:
    plan = Plan(tmp_path, data=("--data", "folder:/images", "--data-name", "photos"), workers=3, device=device)
    for module, *words in STAGES[name].commands(plan):
        if module == "ddpm_bench":
            assert parsed(words)["device"] == device
        else:
            assert module == "pytest" and os.path.exists(words[-1])


def test_the_network_that_is_trained_alone_sees_the_images_that_were_given_and_is_the_one_that_is_sampled(
    tmp_path,
) -> None:
    plan = Plan(tmp_path, data=("--data", "folder:/images"))
    [(_, *train)], [(_, *sample)] = (STAGES[name].commands(plan) for name in ("training", "sampling"))
    assert parsed(train)["data"] == "folder:/images" and parsed(train)["preset"] == "h200"
    assert parsed(train)["out"] == parsed(sample)["ckpt"]


def together(count: int, rate: float) -> Together:
    return Together(
        work="training", contender="ddpm-bench", precision="float32", processes=count, threads=1, batch=4, rates=(rate,)
    )


def test_as_many_cells_run_at_a_time_as_processes_were_fastest_together(tmp_path) -> None:
    plan = Plan(tmp_path)
    assert parsed(list(STAGES["study"].commands(plan)[0][1:]))["workers"] is None
    write(result(together=(together(1, 10), together(2, 30), together(4, 20))), tmp_path / "speed" / "small")
    assert fastest_together(plan.timed("small")) == 2
    assert parsed(list(STAGES["study"].commands(plan)[0][1:]))["workers"] == 2
    nearly = result(together=(together(1, 10), together(4, 29), together(8, 30)))
    assert fastest_together(nearly) == 4 and fastest_together(None) is None


@pytest.mark.parametrize(("compile_seconds", "minutes", "pays"), [(76, 9, False), (76, 60, True), (0, 9, True)])
def test_the_network_is_compiled_where_the_time_it_takes_comes_back(tmp_path, compile_seconds, minutes, pays) -> None:
    plan, plain = Plan(tmp_path, minutes=minutes), result().rows[0]
    found = plain.model_copy(
        update={"contender": "ddpm-bench, compiled", "seconds": (0.6,), "compile_seconds": compile_seconds}
    )
    other = {"precision": "bfloat16", "seconds": (1000.0,)}  # no measure of what compiling brings
    write(result(rows=(plain.model_copy(update={"seconds": (1.0,)}), found, plain.model_copy(update=other))),
          tmp_path / "speed" / "training")  # fmt: skip
    assert ("--compile" in STAGES["training"].commands(plan)[0]) is pays
    assert not compiling_pays(None, 1e9) and not compiling_pays(result(), 1e9)


# ---- goals and archive -----------------------------------------------------------------------------------------------


def test_goals_are_not_measured_until_they_are(tmp_path) -> None:
    assert [goal.measured for goal in goals(Plan(tmp_path))] == [None] * 4


def test_goals_take_the_fastest_of_ours_and_diffusers_in_float32(tmp_path) -> None:
    ours = result().rows[0].model_copy(update={"batch": 1000, "seconds": (0.1,), "precision": "bfloat16"})
    theirs = ours.model_copy(update={"contender": "diffusers", "precision": "float32", "seconds": (0.25,)})
    rounded = theirs.model_copy(update={"precision": "bfloat16", "seconds": (0.15,)})
    compiled = ours.model_copy(update={"contender": "ddpm-bench, compiled", "seconds": (0.05,)})
    for work, rows in (("training", (ours, compiled, rounded, theirs)), ("sampling", (ours, rounded, theirs))):
        write(result(rows=tuple(row.model_copy(update={"work": work}) for row in rows)), tmp_path / "speed" / work)
    training, minutes, faster, sampled = goals(Plan(tmp_path))
    assert (training.measured, training.by) == (20_000, "ddpm-bench, compiled in bfloat16")
    assert minutes.measured == pytest.approx(10_000 * 1000 / 10_000 / 60)
    assert (faster.measured, sampled.measured) == (pytest.approx(5), pytest.approx(2.5))


def test_the_archive_holds_records_and_tables_and_no_weights_and_no_training_images(tmp_path) -> None:
    for name in (
        "summary.json", "results/a-seed0.json", "results/a-seed0.png", "results/a-seed0-neighbours-pixel.png",
        "results/work/a-seed0/step-1/ema.safetensors", "results/work/a-seed0/log.jsonl", "training/step-1/state.json",
        "training/log.jsonl", "cache/features.npz", "speed/x/speed.md", "sampling/samples.npz.partial/1.json", "x.safetensors",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = archive.pack(tmp_path, tmp_path / "gpu.zip")
    with zipfile.ZipFile(found.path) as held:
        assert set(held.namelist()) == {
            "summary.json", "results/a-seed0.json", "results/a-seed0.png", "training/log.jsonl", "speed/x/speed.md",
            "left-out.json",
        }  # fmt: skip
        assert json.loads(held.read("left-out.json")) == found.left_out
    assert sum(found.left_out.values()) == 7 and archive.pack(tmp_path, tmp_path / "gpu.zip").left_out == found.left_out


def test_the_archive_is_never_too_large_and_leaves_out_the_least_telling_first(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(archive, "MOST", 10_000)
    for name in ("a.png", "b.json", "c.npz", "d.npz"):
        (tmp_path / name).write_bytes(os.urandom(4000))
    found = archive.pack(tmp_path, tmp_path / "gpu.zip")
    assert found.path.stat().st_size <= 10_000 and found.left_out == {"more than 0 MiB in all": 2}
    with zipfile.ZipFile(found.path) as held:
        assert held.namelist() == ["b.json", "a.png", "left-out.json"]
