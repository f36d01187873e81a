"""`evaluate --samples --reference`: plain folders, archives and statistics; what was passed over, and what is said."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_data

from ddpm_bench.data.given import read_given
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.metrics.features import features_of
from ddpm_bench.runtime.runtime import Runtime

SMOOTH = np.random.default_rng(0).integers(0, 256, (120, 4, 4), np.uint8).repeat(4, axis=1).repeat(4, axis=2)


def folder(path, images, suffix="png", **options):
    path.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index:03d}.{suffix}", **options)
    return path


@pytest.fixture
def evaluate(call, tmp_path):
    """`evaluate --device cpu` with a cache of the test's own."""
    return lambda *arguments: call("evaluate", *arguments, "--device", "cpu", "--cache", tmp_path / "cache")


@pytest.fixture
def numbers(evaluate):
    """The JSON of `evaluate`."""

    def run(*arguments):
        answer = evaluate(*arguments, "--json")
        assert answer.code == 0, answer.err
        return json.loads(answer.out)

    return run


@pytest.fixture
def data(tmp_path):
    """The --data of 40 training and 24 test images."""
    return tiny_data(tmp_path / "data.npz")


@pytest.fixture
def pair(tmp_path):
    """A folder of 20 images, and one of 70 others in two class folders."""
    folder(tmp_path / "B" / "x", SMOOTH[20:60])
    folder(tmp_path / "B" / "y", SMOOTH[60:90])
    return folder(tmp_path / "A", SMOOTH[:20]), tmp_path / "B"


def statistics(path, images, **more):
    """Statistics of the embedded extractor's features, as pytorch-fid would save them."""
    extractor = load_extractor("embedded", size=16, cache=path.parent)
    features = features_of(torch.from_numpy(images)[:, None], extractor, Runtime()).numpy()
    np.savez(path, mu=features.mean(0), sigma=np.cov(features, rowvar=False), **more)
    return path


def flat(text: str) -> str:
    return " ".join(text.split())


def test_two_plain_folders_are_compared_in_every_number_and_none_is_called_training(evaluate, numbers, pair):
    samples, reference = pair
    found = numbers("--samples", samples, "--reference", reference)
    assert set(found["metrics"]) == {
        "is_mean", "is_std", "fd_reference", "kid_mean", "kid_std", "precision", "recall"
    }  # fmt: skip
    assert found["data"] is None and found["reference"]["path"] == str(reference)
    assert (found["images"], found["reference"]["images"]) == (20, 70)
    assert set(found["anchors"]) == {"uniform noise"}
    assert set(found["anchors"]["uniform noise"]) == set(found["metrics"])
    assert any("held-out real images" in note for note in found["notes"])
    answer = evaluate("--samples", samples, "--reference", reference)
    assert answer.code == 0 and "train" not in answer.out.lower().replace("training run", "")
    assert "20 images against" in answer.out and "FD (embedded)" in answer.out


def test_a_reference_of_images_gives_the_scores_of_a_data_set_with_these_training_images(numbers, tmp_path):
    np.savez(tmp_path / "samples.npz", images=SMOOTH[:30])
    np.savez(tmp_path / "reference.npz", images=SMOOTH[30:90])
    np.savez(tmp_path / "data.npz", train=SMOOTH[30:90], test=SMOOTH[90:])
    plain = numbers("--samples", tmp_path / "samples.npz", "--reference", tmp_path / "reference.npz")["metrics"]
    of_data = numbers("--samples", tmp_path / "samples.npz", "--data", f"npz:{tmp_path / 'data.npz'}")["metrics"]
    assert plain.pop("fd_reference") == of_data.pop("fd_train") and plain == of_data


def test_identical_sets_print_zero_and_are_said_to_be_the_same(evaluate, numbers, pair):
    _, reference = pair
    answer = evaluate("--samples", reference, "--reference", reference)
    assert answer.code == 0 and "0.00" in answer.out and "-0.00 " not in answer.out
    assert "Warning: Samples and reference are the same images." in answer.out
    assert abs(numbers("--samples", reference, "--reference", reference)["metrics"]["fd_reference"]) < 1e-6


def test_the_distance_to_statistics_is_that_to_the_images_that_they_came_from(numbers, tmp_path):
    np.savez(tmp_path / "samples.npz", images=SMOOTH[:30])
    np.savez(tmp_path / "reference.npz", images=SMOOTH[30:])
    saved = statistics(tmp_path / "stats.npz", SMOOTH[30:])
    images = numbers("--samples", tmp_path / "samples.npz", "--reference", tmp_path / "reference.npz")
    found = numbers("--samples", tmp_path / "samples.npz", "--reference", saved, "--extractor", "embedded")
    assert set(found["metrics"]) == {"fd_reference"}
    assert found["metrics"]["fd_reference"] == pytest.approx(images["metrics"]["fd_reference"], rel=1e-9)
    noise = (each["anchors"]["uniform noise"]["fd_reference"] for each in (found, images))
    assert next(noise) == pytest.approx(next(noise), rel=1e-9)
    assert found["extractor"]["name"] == "embedded" and found["reference"]["features"] == 64
    assert found["neighborhood"] is None and found["protocol"] == {"extractor_input": None}
    assert any("tells which extractor made it, nor which size and resizing" in line for line in found["warnings"])
    assert any("Statistics give the distance alone" in line for line in found["notes"])


def test_a_reference_batch_gives_its_statistics_and_says_what_it_passed_over(evaluate, tmp_path, pair):
    spatial = {"mu_s": np.zeros(3), "sigma_s": np.eye(3)}
    saved = statistics(tmp_path / "VIRTUAL.npz", SMOOTH[30:], arr_0=SMOOTH[..., None], **spatial)
    answer = evaluate("--samples", pair[0], "--reference", saved, "--extractor", "embedded")
    assert answer.code == 0, answer.err
    assert "arr_0, mu_s, sigma_s (mu_s and sigma_s are of sFID's features)" in flat(answer.out)
    assert "precision" not in answer.out.splitlines()[2] and "IS (" not in answer.out.splitlines()[2]


SYMMETRIC = np.eye(64)
WRONG_STATISTICS = {
    "integers": (np.zeros(64, int), SYMMETRIC, "'mu'.*is int64; statistics are finite floats"),
    "not finite": (np.zeros(64), np.full((64, 64), np.nan), "'sigma'.*is float64 and not finite"),
    "not square": (np.zeros(64), SYMMETRIC[:32], r"shapes \(64,\) and \(32, 64\)"),
    "a deviation instead of a covariance": (np.zeros(64), np.ones(64), r"shapes \(64,\) and \(64,\)"),
    "not symmetric": (np.zeros(64), SYMMETRIC + np.eye(64, k=1) / 100, "no covariance"),
    "negative variance": (np.zeros(64), SYMMETRIC - 1.01 * np.diag(np.eye(64)[0]), "no covariance"),
    "other features": (np.zeros(128), np.eye(128), "of 128 features.* 'embedded' has 64"),
}


@pytest.mark.parametrize("what", WRONG_STATISTICS)
def test_what_are_no_statistics_of_the_extractor_is_refused(evaluate, tmp_path, pair, what):
    mean, covariance, said = WRONG_STATISTICS[what]
    np.savez(tmp_path / "stats.npz", mu=mean, sigma=covariance)
    answer = evaluate("--samples", pair[0], "--reference", tmp_path / "stats.npz", "--extractor", "embedded")
    assert answer.code == 2
    assert re.search(said, flat(answer.err)), answer.err


def test_statistics_in_float32_are_taken_with_their_rounding(numbers, tmp_path, pair):
    saved = statistics(tmp_path / "stats.npz", SMOOTH[30:])
    with np.load(saved) as held:
        mean, covariance = held["mu"].astype(np.float32), held["sigma"].astype(np.float32)
    covariance[0, 1] *= 1 + 1e-6
    np.savez(tmp_path / "stats32.npz", mu=mean, sigma=covariance)
    whole, rounded = (
        numbers("--samples", pair[0], "--reference", tmp_path / name, "--extractor", "embedded")["metrics"]
        for name in ("stats.npz", "stats32.npz")
    )
    assert whole["fd_reference"] == pytest.approx(rounded["fd_reference"], rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "embedded"], "--data does not go with --reference"),
        (["--data-name", "x"], "--data-name does not go with --reference"),
        (["--data-root", "x"], "--data-root does not go with --reference"),
        (["--test-reference"], "--test-reference does not go with --reference"),
        (["--reference", "nowhere"], "nothing at 'nowhere'"),
        (["--reference", "STATS"], "Name the extractor that made them: --extractor inception"),
        (["--reference", "STATS", "--extractor", "embedded", "--neighborhood", "3"], "--neighborhood is not used"),
        (["--reference", "COLOUR"], "the reference 'COLOUR' of (3, 16, 16)"),
    ],
)
def test_what_does_not_go_with_a_reference_is_refused(evaluate, tmp_path, pair, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    statistics(tmp_path / "stats.npz", SMOOTH[30:])
    np.savez(tmp_path / "colour.npz", images=np.repeat(SMOOTH[..., None], 3, axis=3))
    given = {"STATS": tmp_path / "stats.npz", "COLOUR": tmp_path / "colour.npz"}
    reference = [] if "--reference" in arguments else ["--reference", pair[1]]
    answer = evaluate("--samples", pair[0], *reference, *(given.get(word, word) for word in arguments))
    assert answer.code == 2 and said.replace("COLOUR", str(given["COLOUR"])) in flat(answer.err), answer.err


@pytest.mark.parametrize("option", [["--reference", "x"], ["--recursive"]])
def test_a_checkpoint_is_sampled_first_to_be_compared_with_a_reference(evaluate, option):
    answer = evaluate("--ckpt", "x", *option)
    assert (
        answer.code == 2 and f"{option[0]} does not go with --ckpt" in answer.err and "ddpm-bench sample" in answer.err
    )


def test_folders_in_folders_are_read_on_request_only(evaluate, numbers, pair, tmp_path):
    samples, reference = pair
    folder(samples / "more" / "deep", SMOOTH[100:110])
    answer = evaluate("--samples", samples, "--reference", reference)
    assert answer.code == 2 and "--recursive" in answer.err
    found = numbers("--samples", samples, "--reference", reference, "--recursive")
    assert (found["images"], found["reference"]["images"]) == (30, 70)
    (samples / "more" / "again").symlink_to(samples, target_is_directory=True)
    answer = evaluate("--samples", samples, "--reference", reference, "--recursive")
    assert answer.code == 2 and "is a link to one whose images are counted already" in flat(answer.err)
    (samples / "more" / "again").unlink()
    (samples / "more" / "twice").symlink_to(samples / "more" / "deep", target_is_directory=True)
    answer = evaluate("--samples", samples, "--reference", reference, "--recursive")
    assert answer.code == 2 and "counted already" in flat(answer.err)
    np.savez(tmp_path / "a.npz", images=SMOOTH[:20])
    answer = evaluate("--samples", tmp_path / "a.npz", "--recursive")
    assert answer.code == 2 and "--recursive is for folders" in answer.err


def test_files_that_are_no_pictures_are_passed_over_and_counted_once(evaluate, numbers, pair):
    samples, reference = pair
    others = [
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "metrics.json",
        "notes.txt",
        "plot.eps",
        "report.pdf",
        "stats.h5",
    ]
    for name in others:
        (samples / name).write_bytes(b"x")
    found = numbers("--samples", samples, "--reference", reference)
    assert found["images"] == 20 and found["samples_info"]["passed_over"] == others
    answer = evaluate("--samples", samples, "--reference", reference)
    said = f"Passed over 8 of what lies in '{samples}', hidden or no images: {', '.join(others[:6])}, ..."
    assert flat(answer.out + answer.err).count(said) == 1


@pytest.mark.parametrize("name", ["a.bmp", "a.tif", "a.gif", "a.jp2", "a.ppm"])
def test_pictures_of_a_format_that_is_not_read_are_refused_by_name(evaluate, pair, name):
    (pair[0] / name).write_bytes(b"x")
    answer = evaluate("--samples", pair[0])
    assert answer.code == 2 and name in flat(answer.err) and "format that is not read" in flat(answer.err)


def test_files_are_counted_by_their_content(tmp_path):
    colour = np.stack([SMOOTH, SMOOTH[::-1], SMOOTH], axis=3)
    samples = folder(tmp_path / "A", colour[:10])
    folder(samples, colour[10:13], "jpg")
    folder(samples, colour[13:15], "webp", lossless=True)
    folder(samples, colour[15:16], "lossy.webp", lossless=False)
    (samples / "002.jpg").rename(samples / "in disguise.png")
    given = read_given(samples)
    assert given.files == {"JPEG": 3, "PNG": 10, "WebP": 1, "WebP lossless": 2} and given.lossy == 4


def test_lossy_samples_are_warned_of(evaluate, numbers, data, tmp_path):
    samples = folder(folder(tmp_path / "A", SMOOTH[:10]), SMOOTH[10:13], "jpg")
    found = numbers("--samples", samples, "--data", data)
    assert found["samples_info"]["files"] == {"JPEG": 3, "PNG": 10} and found["samples_info"]["lossy_files"] == 3
    assert any("JPEG" in line for line in found["warnings"])
    answer = evaluate("--samples", samples, "--data", data)
    assert f"Warning: 3 of the 13 files of '{samples}' are JPEG or lossy WebP" in flat(answer.out)
    clean = numbers("--samples", folder(tmp_path / "C", SMOOTH[:10]), "--data", data)
    assert clean["samples_info"]["lossy_files"] == 0 and not any("JPEG" in line for line in clean["warnings"])


def test_ten_real_images_are_warned_of_in_the_table_and_in_json(evaluate, numbers, data, tmp_path):
    samples = folder(tmp_path / "A", SMOOTH[:10])
    answer = evaluate("--samples", samples, "--data", data)
    assert "Warning: IS (embedded) comes out low: each of its 10 parts has 1 image" in flat(answer.out)
    found = numbers("--samples", samples, "--data", data)
    assert found["metrics"]["is_mean"] == pytest.approx(1.0) and found["metrics"]["is_std"] == pytest.approx(
        0, abs=1e-9
    )
    assert [line.split()[0] for line in found["warnings"]] == ["FD", "IS", "KD", "Precision"]


def test_the_protocol_and_all_that_numbers_depend_on_are_in_table_and_json(evaluate, numbers, data, pair):
    answer = evaluate("--samples", pair[1], "--data", data)
    found = numbers("--samples", pair[1], "--data", data)
    assert found["protocol"] == {
        "is_parts": 10, "kid_subsets": 100, "kid_subset_size": 20, "neighborhood": 3, "seed": 0, "density_neighborhood": None,
        "extractor_input": None,
    }  # fmt: skip
    said = flat(answer.out)
    assert (
        "IS (embedded) over 10 shuffled parts; KD (embedded) over 100 subsets of 20 images" in said and "k = 3" in said
    )
    assert f"Extractor: embedded, SHA-256 {found['extractor']['sha256']}" in said
    assert len(found["samples_info"]["sha256"]) == len(found["data"]["sha256"]) == 64
    assert {"ddpm-bench", "torch", "torch-fidelity"} <= set(found["versions"]) and found["hardware"]["device"] == "cpu"
    hashes = [numbers("--samples", each, "--data", data)["samples_info"]["sha256"] for each in pair]
    assert hashes[0] != hashes[1] == found["samples_info"]["sha256"]


def test_a_reference_of_another_size_is_resized_only_when_asked_and_that_is_told(evaluate, numbers, pair, tmp_path):
    larger = folder(tmp_path / "larger", SMOOTH[20:60].repeat(2, axis=1).repeat(2, axis=2))
    refused = evaluate("--samples", pair[0], "--reference", larger)
    assert refused.code == 2 and "of 32x32 pixels, and 16x16 are wanted" in flat(refused.err)
    found = numbers("--samples", pair[0], "--reference", larger, "--resize", "average")
    told = f"The images of '{larger}' are resized from 32x32 to 16x16 pixels by average (2x2)"
    assert told in found["notes"] and told in found["reference"]["notes"]
    plain = numbers("--samples", pair[0], "--reference", folder(tmp_path / "plain", SMOOTH[20:60]))
    assert found["reference"]["sha256"] == plain["reference"]["sha256"] and found["metrics"] == plain["metrics"]


def test_an_array_of_the_reference_is_chosen_by_its_own_key(evaluate, numbers, pair, tmp_path):
    np.savez(tmp_path / "two.npz", real=SMOOTH[20:60], fake=SMOOTH[:20])
    asked = evaluate("--samples", pair[0], "--reference", tmp_path / "two.npz")
    assert asked.code == 2 and "'real'" in asked.err and "'fake'" in asked.err and "--reference-key" in asked.err
    found = numbers("--samples", pair[0], "--reference", tmp_path / "two.npz", "--reference-key", "real")
    assert found["reference"]["images"] == 40 and any("Not used" in note and "fake" in note for note in found["notes"])
    alone = evaluate("--samples", pair[0], "--reference-key", "real")
    assert alone.code == 2 and "--reference-key goes with --reference alone" in alone.err


def test_the_images_of_a_reference_batch_can_be_had_beside_its_statistics(numbers, pair, tmp_path):
    statistics(tmp_path / "batch.npz", SMOOTH[20:60], arr_0=SMOOTH[20:60])
    found = numbers("--samples", pair[0], "--reference", tmp_path / "batch.npz", "--reference-key", "arr_0")
    assert found["reference"]["images"] == 40 and "precision" in found["metrics"]


def test_what_lies_beside_train_and_test_is_passed_over_and_recorded(numbers, pair, tmp_path):
    root = tmp_path / "set"
    folder(root / "train", SMOOTH[20:60])
    folder(root / "test", SMOOTH[60:90])
    folder(root / "val", SMOOTH[90:95])
    found = numbers("--samples", pair[0], "--data", f"folder:{root}")
    assert any("Passed over 1 of what lies in" in note and "val" in note for note in found["data"]["notes"])
