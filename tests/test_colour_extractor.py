"""`efficientnet-lite0`: features of images in colour without a download, and when it is chosen."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import programs
import pytest
import torch
from conftest import SMALL
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from ddpm_bench.errors import UserError
from ddpm_bench.metrics import efficientnet, extractors
from ddpm_bench.metrics.efficientnet import SHA256, SIDE
from ddpm_bench.metrics.extractor import Extractor, MeasuredImages
from ddpm_bench.metrics.extractors import choose_extractor, load_extractor
from ddpm_bench.metrics.features import features_of
from ddpm_bench.records.record import read_record
from ddpm_bench.runtime.runtime import Runtime


@pytest.fixture(scope="module")
def lite0(tmp_path_factory) -> Extractor:
    programs.colour()
    return load_extractor("efficientnet-lite0", size=32, cache=tmp_path_factory.mktemp("cache"))


def scenes(count: int, seed: int, side: int = 32) -> Tensor:
    """Ellipses and rectangles on a ground of two colours that flow into each other: uint8 (count, 3, side, side)."""
    random, (y, x) = np.random.default_rng(seed), np.mgrid[: 1 : side * 1j, : 1 : side * 1j]
    images = np.empty((count, 3, side, side))
    for image in images:
        one, other = random.uniform(0, 255, (2, 3, 1, 1))
        slope = random.uniform(-1, 1) * x + random.uniform(-1, 1) * y
        image[:] = one + (other - one) * (slope - slope.min()) / np.ptp(slope)
        for _ in range(4):
            (across, down), (width, height) = random.uniform(0, 1, 2), random.uniform(0.06, 0.3, 2)
            u, v = abs(x - across) / width, abs(y - down) / height
            image[:, (u**2 + v**2 < 1) if random.random() < 0.5 else (np.maximum(u, v) < 1)] = random.uniform(
                0, 255, (3, 1)
            )
    return torch.from_numpy(images.round().astype(np.uint8))


def noise(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# --- what it measures -------------------------------------------------------------------------------------------------


def test_its_numbers_are_headed_with_its_name_and_say_what_was_done_to_images(lite0) -> None:
    info = lite0.info
    assert info.labels == ("FD (efficientnet-lite0)", "IS (efficientnet-lite0)")
    assert (info.name, info.sha256, info.verified, info.feature_dim) == ("efficientnet-lite0", SHA256, True, 1280)
    assert info.input == "images resized to 128x128 (bicubic with antialias)"


def test_it_computes_what_the_network_that_came_with_the_weights_computes(lite0) -> None:
    """The numbers are of efficientnet-lite-pytorch 0.1.0, its own bias subtracted from the logits."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    image = torch.stack([x * 2, y * 2, (x + y) % 64 * 4]).to(torch.uint8)
    features, logits = lite0.network(image[None])
    values, classes = logits[0].topk(4)
    assert classes.tolist() == [644, 885, 818, 782]
    assert values.tolist() == pytest.approx([6.1975, 5.2956, 5.0849, 5.0496], abs=1e-3)
    assert features.shape == (1, 1280) and features.mean().item() == pytest.approx(0.145675, abs=1e-5)


def test_features_order_images_by_their_quality(lite0) -> None:
    train, held_out = scenes(128, seed=0), scenes(64, seed=1)
    shown = {
        "held-out": held_out,
        "brighter": (held_out * 1.2).clamp(0, 255).round().to(torch.uint8),
        "blurred": gaussian_blur(held_out, [13, 13], [2.0, 2.0]),
        "noise": noise(held_out.shape),
    }
    reference = features_of(train, lite0, Runtime())
    found = {name: frechet(features_of(images, lite0, Runtime()), reference) for name, images in shown.items()}
    assert 0 < found["held-out"] < found["brighter"] < found["blurred"] < found["noise"]
    assert found["blurred"] > 2 * found["held-out"] and found["noise"] > 4 * found["held-out"]


def frechet(one: Tensor, other: Tensor) -> float:
    """As Heusel et al. 2017, eq. 6; tr (S_1 S_2)^(1/2) is the nuclear norm of the product of the centred features."""
    a, b = ((each - each.mean(0)) / (len(each) - 1) ** 0.5 for each in (one, other))
    cross = torch.linalg.matrix_norm(a @ b.T, "nuc")
    return float((one.mean(0) - other.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * cross)


@pytest.mark.parametrize("height, width", [(8, 8), (20, 33), (128, 128), (300, 200)])
def test_images_of_any_size_are_resized_as_pillow_does_it(lite0, height, width) -> None:
    images = noise((1, 3, height, width))
    lite0.check_size(height, width)
    levels = [
        np.asarray(Image.fromarray(one.float().numpy()).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for one in images[0]
    ]
    x = (torch.from_numpy(np.stack(levels))[None] - 127) / 128
    features, _ = lite0.network(images)
    assert torch.allclose(features, lite0.network.body(x), atol=1e-4) and features.abs().max() > 1


def test_grey_images_are_measured_as_colour_images_of_equal_channels(lite0) -> None:
    grey = scenes(2, seed=3)[:, :1]
    (batch,) = MeasuredImages("images", grey, lite0).batches(2)
    assert torch.equal(batch, grey.expand(2, 3, 32, 32))


# --- what is refused --------------------------------------------------------------------------------------------------


def test_weights_with_another_hash_are_refused_before_anything_is_loaded(lite0, tmp_path, monkeypatch) -> None:
    other = tmp_path / efficientnet.FILE
    other.write_bytes(efficientnet._weights_path().read_bytes() + b"?")
    monkeypatch.setattr(efficientnet, "_weights_path", lambda: other)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(
        UserError, match=rf"damaged or of another release.*expected {SHA256}\. Nothing of it was loaded"
    ):
        load_extractor("efficientnet-lite0", cache=tmp_path)
    other.unlink()
    with pytest.raises(UserError, match=r"Cannot read the weights .*No such file.*ddpm-bench\[colour\]"):
        load_extractor("efficientnet-lite0", cache=tmp_path)


def test_a_network_that_the_weights_do_not_fit_is_refused(lite0, tmp_path, monkeypatch) -> None:
    import timm

    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **how: made("tf_efficientnet_lite1", **how))
    with pytest.raises(UserError, match=r"timm [\d.]+ has another EfficientNet-Lite0 \(body\.blocks"):
        load_extractor("efficientnet-lite0", cache=tmp_path)


@pytest.fixture
def not_installed(monkeypatch) -> None:
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)


def test_without_the_package_the_command_that_installs_it_is_told(
    call, not_installed, colour_samples, colour_data
) -> None:
    images = ("--samples", colour_samples, "--data", colour_data)
    answer = call("evaluate", *images, "--extractor", "efficientnet-lite0")
    assert answer.code == 2 and "Traceback" not in answer.err
    assert 'pip install "ddpm-bench[colour]"' in answer.err


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    program = "import sys; from ddpm_bench import cli; from ddpm_bench.metrics import extractors; assert 'timm' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("option", [("--inception-weights", "w.pth"), ("--allow-unverified-weights",)])
def test_weights_for_inception_are_not_passed_over_with_another_extractor(call, tmp_path, option) -> None:
    np.savez(tmp_path / "grey.npz", noise((12, 16, 16)).numpy())
    images = ("--samples", tmp_path / "grey.npz", "--resize", "average")
    answer = call("evaluate", *images, "--extractor", "embedded", *option)
    assert answer.code == 2 and f"{option[0]} is for the extractor 'inception'" in answer.err


# --- when it is chosen ------------------------------------------------------------------------------------------------


@pytest.fixture
def no_inception(tmp_path, monkeypatch) -> None:
    """Inception's weights lie nowhere, and nothing may be downloaded."""

    def refuse(*_, **__):
        raise AssertionError("a download was begun")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("urllib.request.urlopen", refuse)


class Means(nn.Module):
    """Stands for the network where only its place matters: a few means of pixels."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)
        return features, features


@pytest.fixture
def stand_in(monkeypatch, no_inception) -> None:
    monkeypatch.setattr(efficientnet, "installed", lambda: True)
    monkeypatch.setattr(efficientnet, "efficientnet_lite0", Means)
    monkeypatch.setattr(efficientnet, "TIMM", "torch")  # whose version is recorded


@pytest.fixture
def colour_data(tmp_path) -> str:
    path = tmp_path / "scenes.npz"
    np.savez(path, train=scenes(48, 0, 16).numpy(), test=scenes(32, 1, 16).numpy())
    return f"npz:{path}"


@pytest.fixture
def colour_samples(tmp_path):
    path = tmp_path / "samples.npz"
    np.savez(path, samples=scenes(16, 2, 16).permute(0, 2, 3, 1).numpy())
    return path


def test_grey_images_are_measured_by_the_shipped_extractor_without_a_word(
    tmp_path, no_inception, messages, capsys
) -> None:
    grey = scenes(3, 0)[:, :1]
    for images in (grey, grey.repeat(1, 3, 1, 1)):
        assert choose_extractor("embedded", images, None, tmp_path) == "embedded"
    assert choose_extractor("mine.safetensors", scenes(3, 0), None, tmp_path) == "mine.safetensors"
    assert not capsys.readouterr().err


def test_colour_is_measured_by_inception_where_its_weights_are_at_hand(
    tmp_path, no_inception, messages, capsys, monkeypatch
) -> None:
    assert choose_extractor("embedded", scenes(3, 0), tmp_path / "given.pth", tmp_path) == "inception"
    monkeypatch.setattr(extractors, "held_weights", lambda cache: cache / "weights.pth")
    assert choose_extractor("embedded", scenes(3, 0), None, tmp_path) == "inception"
    assert "Inception measures them" in capsys.readouterr().err


def test_colour_with_neither_is_refused_and_both_ways_out_are_told(
    call, tmp_path, no_inception, not_installed, colour_data, colour_samples
) -> None:
    answer = call("evaluate", "--samples", colour_samples, "--data", colour_data, "--cache", tmp_path / "cache")
    assert answer.code == 2 and "Traceback" not in answer.err
    for way in ('pip install "ddpm-bench[colour]"', "--extractor inception", "--inception-weights PATH"):
        assert way in " ".join(answer.err.split())


def test_evaluate_takes_it_for_images_in_colour_and_says_so(
    call, tmp_path, stand_in, colour_data, colour_samples
) -> None:
    images = ("--samples", colour_samples, "--data", colour_data)
    answer = call("evaluate", *images, "--cache", tmp_path / "cache", "--json")
    assert answer.code == 0, answer.err
    assert "Inception's weights are not at hand: efficientnet-lite0 measures them" in " ".join(answer.err.split())
    used = json.loads(answer.out)["extractor"]
    assert used["input"] == efficientnet.RESIZED and used["labels"][0] == "FD (efficientnet-lite0)"


def test_a_presets_own_extractor_gives_way_for_images_in_colour_and_the_record_names_the_other(
    call, tmp_path, stand_in, colour_data
) -> None:
    arguments = (
        "ablate", "--preset", "smoke", "--cells", "eps-mse-fixed", *SMALL, "--data", colour_data, "--device", "cpu", "--workers", "1",
        "--results", tmp_path / "results", "--cache", tmp_path / "cache",
    )  # fmt: skip
    answer = call(*arguments, "--reports", tmp_path / "report")
    assert answer.code == 0, answer.err
    assert "efficientnet-lite0 measures them" in " ".join(answer.err.split())
    record = read_record(tmp_path / "results" / "eps-mse-fixed-seed0.json")
    assert record.settings.scoring.extractor == record.extractor.name == "efficientnet-lite0"
    report = (tmp_path / "report" / "report.md").read_text()
    assert "--set scoring.extractor=efficientnet-lite0" in report and efficientnet.RESIZED in report
    assert "measured already" in call(*arguments, "--no-report", "--extractor", "efficientnet-lite0").err


def test_an_extractor_that_was_asked_for_is_not_replaced(call, tmp_path, stand_in, colour_data) -> None:
    arguments = ("ablate", "--preset", "smoke", "--data", colour_data, "--results", tmp_path / "results", "--no-report")
    for asked in (("--extractor", "embedded"), ("--set", "scoring.extractor=embedded")):
        answer = call(*arguments, *asked, "--cache", tmp_path / "cache")
        assert (
            answer.code == 2 and "measures grey images" in answer.err and "--extractor efficientnet-lite0" in answer.err
        )


def test_the_version_of_the_networks_package_is_recorded(lite0) -> None:
    from ddpm_bench.records.provenance import versions

    assert "timm" in versions(*lite0.packages) and "timm" not in versions(*replace(lite0, packages=()).packages)
