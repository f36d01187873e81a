"""torch-fidelity's Inception. Its weights are found or downloaded, known by their SHA-256, and read as tensors only.

A .pth file is a pickle, which can run anything when it is read. So a file is hashed before it is opened, what was
hashed is what is read, and it is read with `weights_only=True`.
"""

import hashlib
import io
import pickle
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from ddpm_bench.errors import UserError
from ddpm_bench.files import regular, replacing, sha256_file
from ddpm_bench.metrics.extractor import SpatialLayer
from ddpm_bench.networks.weights import odd, read_pickle
from ddpm_bench.runtime.observer import progress

INCEPTION_URL = URL_INCEPTION_V3
LAYERS = ["2048", "logits_unbiased"]
NAME = "weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
REMEDY = (
    f"Get '{NAME}' (a release file of torch-fidelity) on a machine with a network and give it with "
    "--inception-weights PATH, or score with --extractor efficientnet-lite0, --extractor embedded (grey images) or another "
    "extractor's PATH."
)
TIMEOUT_S = 30.0


SPATIAL_CHANNELS, SPATIAL_SIDE = 7, 17
"""Of sFID's features: 2,023 numbers (guided-diffusion, evaluations/evaluator.py)."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, the SHA-256 of the file that held them, and whether that is the one of published numbers."""

    state: dict[str, Tensor]
    sha256: str

    @property
    def verified(self) -> bool:
        return self.sha256 == SHA256


def inception_network(state: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's inception-v3-compat with these weights: uint8 (B, 3, H, W) -> pool3 (B, 2048), logits (B, 1008).

    torch-fidelity unpickles what it is given. So it is given a buffer that we have just written ourselves from tensors.
    RuntimeError when the tensors are not Inception's.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return FeatureExtractorInceptionV3("inception-v3-compat", LAYERS, feature_extractor_weights_path=buffer)


def spatial_layer(network: nn.Module) -> SpatialLayer:
    """Where sFID's features come from, of the network of `inception_network`.

    ADM's evaluator takes them from the tensor mixed_6/conv:0 of TensorFlow's graph, the rectified output of a 1x1
    convolution. The graph counts from `mixed`, which is torch's Mixed_5b; so mixed_6 is Mixed_6d, and not Mixed_6e or Mixed_6b
    (torch-fidelity, utils/util_convert_inception_weights.py).
    """
    return SpatialLayer(network.get_submodule("Mixed_6d.branch1x1"), SPATIAL_CHANNELS, SPATIAL_SIDE)


def read_weights(path: Path, allow_unverified: bool) -> Weights:
    """Read a weights file. UserError, before anything is loaded, when its hash is another and that is not allowed."""
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read the Inception weights '{path}': {error.strerror}. {REMEDY}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != SHA256 and not allow_unverified:
        raise UserError(
            f"'{path}' is not the published '{NAME}': its SHA-256 is {sha256}, expected {SHA256}. Nothing of it was "
            "loaded. Get the right file, or pass --allow-unverified-weights: every table will then "
            "say that the scores are not comparable."
        )
    try:
        state = read_pickle(content)
    except UserError:
        raise
    except (pickle.UnpicklingError, ValueError) as error:
        raise UserError(
            f"'{path}' is damaged or holds something other than tensors; nothing in it was run. Give Inception "
            "weights for torch-fidelity."
        ) from error
    if not isinstance(state, dict) or odd(state):
        raise UserError(f"'{path}' holds no tensors by name. Give Inception weights for torch-fidelity.")
    return Weights(dict(state), sha256)


def held_weights(cache: Path) -> Path | None:
    """The verified file in our own cache or torch's; None where there is none."""
    paths = (folder / NAME for folder in (cache, Path(torch.hub.get_dir()) / "checkpoints"))
    return next((path for path in paths if path.is_file() and sha256_file(path) == SHA256), None)


def find_weights(cache: Path, url: str) -> Path:
    """The verified file in torch's or our own cache; downloaded from `url` to ours where there is none.

    UserError with the remedy when it cannot be had.
    """
    if held := held_weights(cache):
        return held
    path = cache / NAME
    with replacing(path) as temporary:
        try:
            sha256 = _download(url, temporary)
        except (OSError, urllib.error.URLError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(f"Cannot download the Inception weights ({reason}). {REMEDY}") from error
        if sha256 != SHA256:
            raise UserError(
                f"What was downloaded as '{NAME}' has the SHA-256 {sha256}, expected {SHA256}; it was thrown away. "
                f"{REMEDY}"
            )
    return path


def _download(url: str, path: Path) -> str:
    """Write `url` to `path`; returns the SHA-256 of what was written."""
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as source, path.open("wb") as target:
        total = int(source.headers.get("Content-Length") or 0)
        done = 0
        with progress(f"downloading {NAME}", total, "bytes") as meter:
            while block := source.read(1 << 20):
                digest.update(block)
                target.write(block)
                done += len(block)
                meter.update(done)
    return digest.hexdigest()
