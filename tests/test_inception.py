"""Inception, whose weights are never trusted."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from harmful import Harmful
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from ddpm_bench.config.settings import ScoringSettings
from ddpm_bench.errors import UserError
from ddpm_bench.metrics import extractors, inception
from ddpm_bench.metrics.extractor import MeasuredImages
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.metrics.features import outputs_of
from ddpm_bench.metrics.fidelity import score
from ddpm_bench.metrics.inception import INCEPTION_URL
from ddpm_bench.runtime.runtime import Runtime


class RandomInception(FeatureExtractorInceptionV3):
    """The architecture without its weights."""

    def load_state_dict(self, state_dict, strict=True):
        return None


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory) -> Path:
    """Random weights in the published architecture, as a .pth file."""
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RandomInception("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def no_loading(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the file was opened")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(FeatureExtractorInceptionV3, "__init__", refuse)


def test_weights_with_another_hash_are_refused_before_anything_is_loaded(random_weights, tmp_path, no_loading):
    found = hashlib.sha256(random_weights.read_bytes()).hexdigest()
    expected = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
    with pytest.raises(UserError, match=rf"{found}, expected {expected}.*--allow-unverified-weights"):
        load_extractor("inception", inception_weights=random_weights, cache=tmp_path)


def test_unverified_inception_scores_and_says_so(random_weights, tmp_path, monkeypatch):
    # For speed: 75 pixels are the least that Inception takes.
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 75)
    extractor = load_extractor(
        "inception", size=28, inception_weights=random_weights, allow_unverified=True, cache=tmp_path
    )
    assert not extractor.info.verified
    assert extractor.info.labels == ("FID (unverified)", "IS (unverified)")
    assert extractor.info.sha256 == hashlib.sha256(random_weights.read_bytes()).hexdigest()
    generator = torch.Generator().manual_seed(0)
    grey = torch.randint(0, 256, (24, 1, 28, 28), dtype=torch.uint8, generator=generator)
    found = score(grey[:12], grey[12:], extractor, ScoringSettings(), Runtime(cache=tmp_path))
    assert all(np.isfinite(value) for value in found.values()) and found["fd_train"] > 0
    with torch.no_grad():
        features, logits = extractor.network(grey[:2].repeat(1, 3, 1, 1))
    assert features.shape == (2, 2048)
    assert torch.allclose(logits, features @ extractor.network.fc.weight.T, atol=1e-5)  # trap 7: without the bias
    assert extractor.network.fc.bias.abs().max() > 0


def test_spatial_features_of_inception_are_seven_channels_of_the_tensor_that_adms_evaluator_takes(
    random_weights, tmp_path
):
    """mixed_6/conv:0 of TensorFlow's graph, rectified: the first branch of the seventh block `mixed...`, on 17x17 places."""
    extractor = load_extractor("inception", inception_weights=random_weights, allow_unverified=True, cache=tmp_path)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = outputs_of(MeasuredImages("images", images, extractor), extractor, Runtime(), spatial=True)
    assert found.spatial.shape == (2, 2023)
    network = extractor.network
    x = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
    blocks = [name for name, _ in network.named_children() if name.startswith("Mixed_")]
    with torch.no_grad():
        x = (x - 128) / 128
        for name, layer in network.named_children():
            if name == blocks[6]:
                break
            x = layer(x)
        block = getattr(network, blocks[6])
        expected = block.branch1x1.bn(block.branch1x1.conv(x)).clamp(min=0)[:, :7].permute(0, 2, 3, 1).flatten(1)
    assert torch.allclose(found.spatial.float(), expected, atol=1e-5) and expected.std() > 0
    assert found.features.shape == (2, 2048)


def test_weights_with_the_published_hash_are_inceptions(random_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(random_weights.read_bytes()).hexdigest())
    info = load_extractor("inception", inception_weights=random_weights, cache=tmp_path).info
    assert (info.name, info.verified, info.labels, info.feature_dim) == ("inception", True, ("FID", "IS"), 2048)


@pytest.mark.parametrize("content", [lambda ran: Harmful(ran), lambda ran: {"Conv2d_1a_3x3.conv.weight": Harmful(ran)}])
def test_a_malicious_pickle_is_refused_and_not_run_even_when_unverified_weights_are_allowed(tmp_path, content):
    path, ran = tmp_path / "weights.pth", tmp_path / "ran"
    torch.save(content(ran), path)
    with pytest.raises(UserError, match=r"nothing in it was run"):
        load_extractor("inception", inception_weights=path, allow_unverified=True, cache=tmp_path)
    assert not ran.exists()
    torch.load(path, weights_only=False)
    assert ran.exists()  # it would have


@pytest.mark.parametrize(
    "content, message",
    [
        ({"weight": torch.zeros(3)}, "weights of another network"),
        ([torch.zeros(3)], "no tensors by name"),
        (None, "damaged or holds something other than tensors"),
    ],
)
def test_files_that_are_no_inception_weights_are_named(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x02") if content is None else torch.save(content, path)
    with pytest.raises(UserError, match=rf"weights.pth.*{message}"):
        load_extractor("inception", inception_weights=path, allow_unverified=True, cache=tmp_path)
    with pytest.raises(UserError, match=r"Cannot read the Inception weights.*No such file"):
        load_extractor("inception", inception_weights=tmp_path / "none.pth", cache=tmp_path)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """torch's own folder for downloads, empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_without_a_network_the_remedy_is_told(tmp_path, monkeypatch, hub):
    monkeypatch.setattr(extractors, "INCEPTION_URL", "http://127.0.0.1:9/weights.pth")  # nothing listens there
    with pytest.raises(UserError, match=r"Cannot download.*refused.*--inception-weights PATH.*--extractor embedded"):
        load_extractor("inception", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_download_is_kept_only_if_its_hash_is_right(tmp_path, monkeypatch, hub):
    source, cache = tmp_path / "source.pth", tmp_path / "cache"
    source.write_bytes(b"weights")
    with pytest.raises(UserError, match=r"thrown away"):
        inception.find_weights(cache, source.as_uri())
    assert not list(cache.iterdir())
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"weights").hexdigest())
    path = inception.find_weights(cache, source.as_uri())
    assert path.read_bytes() == b"weights" and path.parent == cache
    source.unlink()
    assert inception.find_weights(cache, source.as_uri()) == path  # not downloaded again
    path.write_bytes(b"damaged")
    (hub / inception.NAME).write_bytes(b"weights")
    assert inception.find_weights(cache, source.as_uri()) == hub / inception.NAME  # where torch-fidelity keeps it


def test_the_download_is_torch_fidelitys_own_file():
    assert INCEPTION_URL.endswith(inception.NAME) and inception.SHA256.startswith(inception.NAME[-12:-4])
