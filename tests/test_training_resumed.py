"""Training that stops and goes on: stopping changes nothing, and of what is damaged or of another run nothing is taken."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import unsealed
from tiny_training import NETWORK, SETTINGS, Loss, SizedLoss, SquaresLoss, assert_same, lines, resumed, trainer

from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.files import sha256_file
from ddpm_bench.networks.unet import UNet
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.sealed import SEAL
from ddpm_bench.training import snapshots
from ddpm_bench.training.trainer import Trainer


@pytest.mark.parametrize("kind", [Loss, SizedLoss, SquaresLoss])
@pytest.mark.parametrize("stops", [[4], [5], [1, 2, 7]])
def test_stopped_and_resumed_equals_uninterrupted_bitwise(tmp_path: Path, stops: list[int], kind: type[Loss]) -> None:
    straight = trainer(tmp_path / "a", loss=kind())
    straight.run(10)
    for stop in stops:
        resumed(tmp_path / "b", loss=kind()).run(stop)
    again = trainer(tmp_path / "b", loss=kind())
    assert again.resume() == stops[-1]
    again.run(10)
    assert_same(again, straight)
    assert [line["step"] for line in lines(tmp_path / "b")] == [3, 6, 9]


@pytest.mark.parametrize("stops", [[2], [14], [2, 14]])
def test_importance_sampling_goes_on_bitwise_from_before_and_after_it_began(tmp_path: Path, stops: list[int]) -> None:
    def begun(run: Trainer) -> bool:
        return bool((run.times.state()["heard"][1:] >= 10).all())

    settings = SETTINGS.model_copy(update={"batch": 16})
    straight = trainer(tmp_path / "a", loss=SquaresLoss(), settings=settings)
    straight.run(18)
    for stop in stops:
        part = resumed(tmp_path / "b", loss=SquaresLoss(), settings=settings)
        part.run(stop)
        assert begun(part) == (stop == 14)
    again = resumed(tmp_path / "b", loss=SquaresLoss(), settings=settings)
    assert begun(again) == (stops[-1] == 14)
    again.run(18)
    assert begun(again)
    assert_same(again, straight)
    assert (straight.batches.at(18).weight != 1).all()


@pytest.mark.parametrize("kind", [Loss, SizedLoss, SquaresLoss])
def test_killed_by_the_system_and_resumed_equals_uninterrupted_bitwise(tmp_path: Path, kind: type[Loss]) -> None:
    program = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch
        from pathlib import Path
        from tiny_training import {kind.__name__}, trainer
        torch.set_num_threads({torch.get_num_threads()})
        trainer(Path({str(tmp_path / "b")!r}), loss={kind.__name__}()).run(1_000_000)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stderr=subprocess.PIPE) as child:
        try:
            while child.poll() is None and not any(
                found.name >= "step-000008" for found in snapshots.snapshots(tmp_path / "b")
            ):
                time.sleep(0.02)
            assert child.poll() is None, child.stderr.read().decode()
        finally:
            child.kill()
    again = trainer(tmp_path / "b", loss=kind())
    found = again.resume()
    assert found >= 8 and found % SETTINGS.checkpoint_every == 0
    again.run(found + 3)
    straight = trainer(tmp_path / "a", loss=kind())
    straight.run(found + 3)
    assert_same(again, straight)
    assert [line["step"] for line in lines(tmp_path / "b")] == [point.step for point in straight.log]


def test_a_signal_saves_and_interrupts_and_the_run_goes_on(tmp_path: Path) -> None:
    with Stop(), pytest.raises(Interrupted):
        trainer(tmp_path / "b", loss=Loss(signal_at=6)).run(10)
    again = trainer(tmp_path / "b")
    assert again.resume() == 6
    again.run(10)
    straight = trainer(tmp_path / "a")
    straight.run(10)
    assert_same(again, straight)


def test_log_lines_beyond_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.run(4)
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write('{"step": 6, "loss": 1.0}\n{"step": 9, "lo')
    resumed(tmp_path).run(7)
    assert [line["step"] for line in lines(tmp_path)] == [3, 6]
    assert set(lines(tmp_path)[0]) == {"step", "loss", "gradient_norm", "seconds", "images_per_s"}
    seconds = [line["seconds"] for line in lines(tmp_path)]
    assert 0 < seconds[0] < seconds[1]


def test_a_log_without_a_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 3, "loss": 1.0}\n')
    run = trainer(tmp_path)
    assert run.resume() == 0
    run.run(3)
    assert len(lines(tmp_path)) == 1


def test_snapshots_come_at_intervals_and_at_the_end_and_keep_limits_them(tmp_path: Path) -> None:
    trainer(tmp_path, keep=2).run(9)
    assert [path.name for path in snapshots.snapshots(tmp_path)] == ["step-000008", "step-000009"]
    weights, metadata = snapshots.load_weights(tmp_path)
    about = {"step": 9, "seed": 3, "identity": {"base": 8}, "sampling": SamplingSettings().model_dump(mode="json")}
    assert metadata == about | {"sha256": sha256_file(tmp_path / "step-000009" / "ema.safetensors")}
    run = resumed(tmp_path)
    assert all(torch.equal(weights[name], p) for name, p in run.ema_network().state_dict().items())
    with pytest.raises(UserError, match="keep = 0"):
        trainer(tmp_path, keep=0)


def test_a_snapshot_has_the_hash_of_its_averaged_weights_and_of_all_before(tmp_path: Path) -> None:
    trainer(tmp_path, keep=9).run(9)
    hashes = {
        str(step): sha256_file(tmp_path / f"step-{step:06d}" / "ema.safetensors") for step in (4, 8, 9)
    }  # fmt: skip
    assert len(set(hashes.values())) == 3
    assert snapshots.load_state(tmp_path / "step-000009")["weights"] == hashes
    again = resumed(tmp_path)
    assert again.weights == hashes
    again.run(10)
    assert [path.name for path in snapshots.snapshots(tmp_path)] == ["step-000010"]
    ten = sha256_file(tmp_path / "step-000010" / "ema.safetensors")
    assert again.weights == snapshots.load_state(tmp_path / "step-000010")["weights"] == hashes | {"10": ten}


def test_a_snapshot_of_before_hashes_were_kept_has_its_own(tmp_path: Path) -> None:
    trainer(tmp_path).run(4)
    unsealed(tmp_path / "step-000004", "weights", "sampling")
    assert resumed(tmp_path).weights == {"4": sha256_file(tmp_path / "step-000004" / "ema.safetensors")}


def test_going_on_with_other_sampling_notes_it_and_changes_nothing_else(tmp_path: Path) -> None:
    trainer(tmp_path / "a").run(8)
    trainer(tmp_path / "b").run(4)
    snapshot = tmp_path / "b" / "step-000004"
    before, files = snapshots.load_state(snapshot), {path: sha256_file(path) for path in snapshot.glob("*.safetensors")}
    assert before["sampling"] == SamplingSettings().model_dump(mode="json")
    other = SamplingSettings(steps=5, clip_x0=False)
    again = resumed(tmp_path / "b", sampling=other)
    after = snapshots.load_state(snapshot)
    assert after == before | {"sampling": other.model_dump(mode="json"), SEAL: after[SEAL]}
    assert {path: sha256_file(path) for path in files} == files
    assert SamplingSettings(**snapshots.load_weights(tmp_path / "b")[1]["sampling"]) == other
    again.run(8)
    assert SamplingSettings(**snapshots.load_weights(tmp_path / "b")[1]["sampling"]) == other
    for stem in ("network", "ema", "optimizer"):
        one, two = (tmp_path / name / "step-000008" / f"{stem}.safetensors" for name in "ab")
        assert sha256_file(one) == sha256_file(two)


def test_finished_is_finished(tmp_path: Path) -> None:
    trainer(tmp_path).run(4)
    loss = Loss()
    again = resumed(tmp_path, loss=loss)
    assert again.run(4) is None and again.run(3) is None
    assert loss.calls == 0 and again.step == 4


def test_checkpoints_are_neither_overwritten_nor_taken_up_unasked(tmp_path: Path) -> None:
    trainer(tmp_path).run(4)
    with pytest.raises(UserError, match=r"has snapshots already.*resume"):
        trainer(tmp_path).run(4)
    trainer(tmp_path / "b", loss=Loss(nan_at=1)).run(4)
    with pytest.raises(UserError, match=r"has snapshots already.*resume"):
        trainer(tmp_path / "b").run(4)


def test_another_identity_or_seed_is_refused_with_the_difference(tmp_path: Path) -> None:
    trainer(tmp_path, identity={"network": {"base": 8}}).run(1)
    with pytest.raises(UserError, match=r"network\.base: was 8, now 16"):
        resumed(tmp_path, identity={"network": {"base": 16}})
    with pytest.raises(UserError, match="seed: was 3, now 4"):
        resumed(tmp_path, identity={"network": {"base": 8}}, seed=4)


def test_weights_of_another_network_are_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    trainer(tmp_path).run(1)
    other = trainer(tmp_path, network=UNet(1, 1, 8, NETWORK.model_copy(update={"base": 12})))
    before = [p.clone() for p in other.network.parameters()]
    with pytest.raises(UserError, match="another network"):
        other.resume()
    assert all(torch.equal(p, q) for p, q in zip(other.network.parameters(), before, strict=True))


@pytest.mark.parametrize("file", ["network", "ema", "optimizer", "state"])
@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
def test_of_a_damaged_snapshot_the_one_before_is_gone_on_from_and_it_is_said(
    tmp_path: Path, file: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, keep=2).run(9)
    straight = {path.name: sha256_file(path) for path in (tmp_path / "step-000009").glob("*.safetensors")}
    assert [path.name for path in snapshots.snapshots(tmp_path)] == ["step-000008", "step-000009"]
    (path,) = (tmp_path / "step-000009").glob(f"{file}.*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.unlink() if how == "missing" else path.write_bytes(content[:-100] if how == "truncated" else content)
    with caplog.at_level("INFO", "ddpm_bench"):
        again = resumed(tmp_path, keep=2)
    assert again.step == 8 and str(path) in caplog.text and "step-000009.damaged-1" in caplog.text
    again.run(9)
    assert {path.name: sha256_file(path) for path in (tmp_path / "step-000009").glob("*.safetensors")} == straight
    assert (tmp_path / "step-000009.damaged-1").is_dir()


def test_without_a_whole_snapshot_a_run_starts_again(tmp_path: Path) -> None:
    trainer(tmp_path).run(1)
    path = tmp_path / "step-000001" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    again = trainer(tmp_path)
    before = [p.clone() for p in again.network.parameters()]
    assert again.resume() == 0
    assert all(torch.equal(p, q) for p, q in zip(again.network.parameters(), before, strict=True))
    assert again.run(1) is None and resumed(tmp_path).step == 1


def test_a_moment_that_is_missing_where_no_hash_tells_is_damage(tmp_path: Path) -> None:
    trainer(tmp_path).run(1)
    unsealed(tmp_path / "step-000001")
    path = tmp_path / "step-000001" / "optimizer.safetensors"
    moments = load_file(path)
    del moments[min(moments)]
    save_file(moments, path)
    assert resumed(tmp_path).step == 0


def test_a_damaged_note_of_a_divergence_is_made_again(tmp_path: Path) -> None:
    expected = trainer(tmp_path, loss=Loss(nan_at=5)).run(9)
    note = tmp_path / "diverged.json"
    note.write_bytes(note.read_bytes().replace(b'"step": 5', b'"step": 4'))
    again = resumed(tmp_path, loss=Loss(nan_at=1))
    assert again.divergence is None and again.step == 4
    assert again.run(9) == expected
