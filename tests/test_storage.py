"""Results that lie elsewhere: folders kept in step with a place, and one owner a place."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer
from tiny_models import tiny_data, tiny_preset

from ddpm_bench.errors import UserError
from ddpm_bench.runtime.interrupt import Stop, ask_to_stop
from ddpm_bench.storage import lease as leases
from ddpm_bench.storage import store as stores
from ddpm_bench.storage.lease import LEASE, leased
from ddpm_bench.storage.store import Mirror, Store, Unreachable, fetch, is_url
from ddpm_bench.training.trainer import Trainer


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of a bucket in an object store on this machine."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("ENDPOINT_URL", address)):
            patched.setenv(f"AWS_{name}", value)
        fsspec.filesystem("s3").mkdir("tests")
        yield "s3://tests"
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    places = {"memory": "memory://results", "file": f"file://{tmp_path}/there"}
    yield Store.at(places.get(request.param) or f"{request.getfixturevalue('bucket')}/{tmp_path.name}/results")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "EVERY_S", 0.02)
    monkeypatch.setattr(leases, "RENEWED_S", 0.05)
    monkeypatch.setattr(leases, "HELD_S", 0.4)
    monkeypatch.setattr(leases, "SETTLED_S", 0.05)


def free() -> None:
    """No owner to ask."""


def test_what_is_a_url() -> None:
    assert is_url("s3://bucket/results") and not is_url(Path("results/table2")) and not is_url("C:\\results")


def test_a_mirror_begins_with_what_is_there_and_sends_what_changes(place: Store, tmp_path: Path) -> None:
    place.write("eps-seed0.json", b"{}")
    place.write("work/eps-seed0/step-000010/state.json", b"old")
    here = tmp_path / "here"
    here.mkdir()
    (here / "stale.json").write_bytes(b"of another time")
    with Mirror(place, here, free):
        assert sorted(path.name for path in here.rglob("*") if path.is_file()) == ["eps-seed0.json", "state.json"]
        (here / "work/eps-seed0/step-000020").mkdir()
        (here / "work/eps-seed0/step-000020/state.json").write_bytes(b"new")
        (here / "work/eps-seed0/step-000010/state.json").unlink()
        (here / ".owner.lock").touch()
        (here / ".step-000030.partial").mkdir()
        (here / ".step-000030.partial/state.json").write_bytes(b"half")
    assert place.names() == ["eps-seed0.json", "work/eps-seed0/step-000020/state.json"]
    assert place.read("work/eps-seed0/step-000020/state.json") == b"new"
    elsewhere = tmp_path / "elsewhere"
    fetch(place, elsewhere, without=("work",))
    assert [path.name for path in elsewhere.iterdir()] == ["eps-seed0.json"]


def test_a_mirror_sends_while_the_block_runs(place: Store, tmp_path: Path) -> None:
    with Mirror(place, tmp_path / "here", free):
        (tmp_path / "here" / "record.json").write_bytes(b"1")
        for _ in range(200):
            if place.names():
                break
            threading.Event().wait(0.02)
        assert place.read("record.json") == b"1"


def test_what_cannot_be_sent_is_tried_for_a_while_and_then_told(
    place: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, left = Store.put, [3]

    def refusing(store: Store, path: Path, name: str) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise Unreachable("the network is down.")
        put(store, path, name)

    monkeypatch.setattr(Store, "put", refusing)
    with Mirror(place, tmp_path / "here", free):
        (tmp_path / "here" / "record.json").write_bytes(b"1")
    assert place.read("record.json") == b"1"
    monkeypatch.setattr(stores, "PATIENCE_S", 0.05)
    left[0] = 1000
    with (
        pytest.raises(UserError, match=r"network is down.*What was not sent lies in"),
        Mirror(place, tmp_path / "here", free),
    ):
        (tmp_path / "here" / "late.json").write_bytes(b"2")
    assert (tmp_path / "here" / "late.json").exists()


def test_one_of_two_writes_of_something_new_succeeds(place: Store) -> None:
    place.write(LEASE, b"first", new=True)
    with pytest.raises(FileExistsError):
        place.write(LEASE, b"second", new=True)
    assert place.read(LEASE) == b"first"


def test_a_place_has_one_owner_who_is_named(place: Store) -> None:
    with leased(place) as ours:
        ours.check()
        with pytest.raises(UserError, match=r"in use by process \d+ on .* Wait until it has ended"), leased(place):
            pass
        ours.check()
    with leased(place):
        pass
    assert place.names() == []


def test_what_a_dead_owner_left_is_taken_over_and_whoever_was_away_stops(place: Store, tmp_path: Path) -> None:
    here = tmp_path / "here"
    with Stop(()) as stop, leased(place) as dead:
        place.write(LEASE, b'{"token": "of a machine that is gone", "renewed": 3}')
        with leased(place) as ours:
            ours.check()
            with pytest.raises(UserError, match="taken over by process"):
                dead.check()
            with pytest.raises(UserError, match="taken over"), Mirror(place, here, dead.check):
                (here / "late.json").write_bytes(b"of the one who was away")
                for _ in range(200):
                    if stop.requested:
                        break
                    threading.Event().wait(0.02)
                assert stop.requested
        assert place.names() == []


def test_a_place_that_is_none_is_refused_by_name() -> None:
    for url, said in (
        ("nowhere://x", "no place that fsspec knows"),
        ("abfs://bucket/x", "needs a package that is not installed .*pip install adlfs"),
    ):
        with pytest.raises(UserError, match=said):
            Store.at(url)


def test_a_bucket_that_is_not_there_is_refused_by_name(bucket: str) -> None:
    with pytest.raises(UserError, match=r"'s3://absent/x' has no place to lie in: .*bucket does not exist"):
        Store.at("s3://absent/x")
    assert Store.at(f"{bucket}/absent/x").names() == []


def test_a_name_that_leads_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Store("memory://results")
    system = fsspec.filesystem("memory")
    monkeypatch.setattr(type(system), "find", lambda *_, **__: ["/results/../../etc/passwd"])
    with pytest.raises(UserError, match=r"no path below it"):
        place.names()


def test_a_grid_is_kept_at_a_url_and_goes_on_from_there_on_another_machine(
    call, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two machines with caches of their own: the first is stopped in the middle."""
    url = f"{bucket}/{tmp_path.name}/smoke"
    grid = [
        "ablate",
        "--cells",
        "eps-mse-fixed",
        "--preset",
        tiny_preset(tmp_path),
        "--device",
        "cpu",
        "--results",
        url,
    ]
    grid += [
        "--data",
        tiny_data(tmp_path / "data.npz"),
        "--set",
        "scoring.bootstrap=0",
        "--no-report",
        "--launcher",
        "inline",
    ]
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", stopping_at(4))
        assert call(*grid, "--cache", tmp_path / "one").code == 130
    held = Store(url).names()
    assert "work/eps-mse-fixed-seed0/step-000004/state.json" in held and LEASE not in held
    done = call(*grid, "--cache", tmp_path / "two")
    assert done.code == 0 and "going on at step 4" in done.err
    assert {"eps-mse-fixed-seed0.json", "eps-mse-fixed-seed0.png"} <= set(Store(url).names())
    assert "measured already" in call(*grid, "--cache", tmp_path / "one").err
    assert call("compare", url, url).code in (0, 1) and call(*grid, "--fresh").code == 2


def stopping_at(last: int) -> Callable[[Trainer], None]:
    step = Trainer.train_step

    def one(trainer: Trainer) -> None:
        step(trainer)
        if trainer.step == last:
            ask_to_stop()

    return one
