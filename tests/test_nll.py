"""`ddpm-bench nll` and `ddpm-bench selftest`, as a user types them."""

import json

import pytest
from PIL import Image

from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.networks.unet import UNet


@pytest.fixture
def ckpt(small_run):
    return small_run.results / "work" / "eps-mse-fixed-seed0"


@pytest.fixture
def nll(call, ckpt, tmp_path):
    """Call it on a few images; the parsed JSON."""

    def run(*arguments) -> dict:
        common = ("--ckpt", ckpt, "--images", 12, "--cache", tmp_path / "cache", "--device", "cpu", "--json")
        done = call("nll", *common, *arguments)
        assert done.code == 0, done.err
        return json.loads(done.out)

    return run


def test_both_splits_with_their_gap(nll) -> None:
    found = nll("--split", "both", "--evals", 5)
    test, train = found["bounds"]
    assert [test["split"], train["split"]] == ["test", "train"]
    for bound in (test, train):
        assert (bound["method"], bound["evals"], bound["images"], bound["clip_x0"]) == ("estimate", 5, 12, True)
        assert bound["total"] == pytest.approx(bound["prior"] + bound["middle"] + bound["first"])
        assert bound["estimate_error"] > 0
    assert found["gap"]["value"] == pytest.approx(test["total"] - train["total"])
    assert found["gap"]["standard_error"] == pytest.approx(
        (test["standard_error"] ** 2 + train["standard_error"] ** 2) ** 0.5
    )
    assert (found["weights"], found["step"], found["predicts"], found["T"]) == ("ema", 40, "eps", 10)


def test_an_estimate_agrees_with_the_exact_bound_of_the_same_images(nll) -> None:
    exact, estimate = nll("--exact")["bounds"][0], nll("--evals", 9)["bounds"][0]
    assert (exact["method"], exact["evals"], exact["estimate_error"]) == ("exact", 10, 0)
    assert len(exact["terms"]) == len(exact["mse"]) == 10
    assert abs(estimate["total"] - exact["total"]) < 5 * estimate["estimate_error"]


def test_the_bound_of_a_strided_chain_is_of_its_own_steps(nll) -> None:
    whole, few = nll("--exact")["bounds"][0], nll("--exact", "--steps", "5", "--spacing", "trailing")["bounds"][0]
    assert (few["steps"], few["evals"], len(few["terms"]), whole["steps"]) == (5, 5, 5, None)
    assert few["prior"] == pytest.approx(whole["prior"]) and few["total"] != whole["total"]
    assert nll("--exact", "--steps", "10")["bounds"][0] == whole


def test_clipping_and_decoder_are_chosen_and_said(nll, call, ckpt, tmp_path) -> None:
    usual, other = nll("--exact")["bounds"][0], nll("--exact", "--no-clip", "--decoder", "paper")["bounds"][0]
    assert (other["clip_x0"], other["decoder"]) == (False, "paper")
    assert other["first"] != usual["first"]
    assert other["middle"] != usual["middle"]
    shown = call(
        "nll",
        "--ckpt",
        ckpt,
        "--images",
        12,
        "--cache",
        tmp_path / "cache",
        "--no-clip",
        "--decoder",
        "paper",
        "--exact",
    )
    assert "x_0 not clipped; decoder: paper" in " ".join(shown.out.split())
    assert f"{other['total']:.4f}" in shown.out


def test_a_finished_measurement_answers_without_the_network(nll, monkeypatch) -> None:
    first = nll("--evals", 5)

    def forward(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(UNet, "forward", forward)
    assert nll("--evals", 5)["bounds"] == first["bounds"]
    with pytest.raises(AssertionError, match="measured again"):
        nll("--evals", 5, "--raw")  # other weights are another model
    with pytest.raises(AssertionError, match="measured again"):
        nll("--evals", 5, "--seed", 1)


def test_raw_weights_are_used_when_asked_for_and_named(nll) -> None:
    ema, raw = nll("--evals", 5), nll("--evals", 5, "--raw")
    assert (ema["weights"], raw["weights"]) == ("ema", "raw")
    assert ema["weights_sha256"] != raw["weights_sha256"]
    assert ema["bounds"][0]["total"] != raw["bounds"][0]["total"]


def test_progressive_coding_beside_the_published(nll, tmp_path) -> None:
    found = nll("--progressive", "--out", tmp_path / "out")
    bound = found["bounds"][0]
    page = (tmp_path / "out" / "progressive.md").read_text()
    last = next(line for line in page.splitlines() if line.startswith("| 10 |"))
    assert f"{bound['prior'] + bound['middle']:.5f}" in last
    assert f"{127.5 * bound['mse'][0] ** 0.5:.5f}" in last
    assert "1.77581 | 0.95136" in last
    assert "not comparable" in page
    with Image.open(tmp_path / "out" / "progressive.png") as picture:
        assert picture.width > 400
    assert (tmp_path / "out" / "progressive.pdf").read_bytes().startswith(b"%PDF")
    assert json.loads((tmp_path / "out" / "nll.json").read_text()) == found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ckpt", "nowhere"], "no checkpoint of ddpm-bench in 'nowhere'"),
        (["--evals", "4"], "'--evals': Input should be greater than or equal to 5"),
        (["--images", "1"], "'--images': Input should be greater than or equal to 2"),
        (["--decoder", "exat"], "'exat' is not one of"),
        (["--data", "mnits"], "did you mean 'mnist'"),
        (["--exact", "--evals", "7"], "--evals is for an estimate"),
        (["--steps", "3", "--progressive"], "--progressive is of the whole chain"),
        (["--steps", "11"], "--steps 11 exceeds the 10 steps"),
        (["--spacing", "trailing"], "--spacing chooses among the steps of a chain; give --steps"),
        (["--steps", "10", "--spacing", "trailing"], "but all of them are visited; give fewer --steps"),
        (["--out", "somewhere"], "--out goes with --progressive alone"),
    ],
)
def test_mistakes_are_explained(call, ckpt, tmp_path, arguments, said) -> None:
    done = call("nll", "--ckpt", ckpt, "--cache", tmp_path, *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_selftest_finds_the_known_answers(call) -> None:
    done = call("selftest", "--device", "cpu", "--json")
    checks = json.loads(done.out)
    assert done.code == 0
    assert len(checks) == 9
    assert all(check["passed"] for check in checks)


def test_selftest_notices_a_wrong_variance(call, monkeypatch) -> None:
    right = FixedBeta.log_variance
    monkeypatch.setattr(FixedBeta, "log_variance", lambda *a: right(*a) + 0.1)
    done = call("selftest", "--device", "cpu")
    assert done.code == 1
    assert done.out.count("WRONG") >= 2
