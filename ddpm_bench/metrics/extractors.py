"""Names turned into extractors: Inception, the shipped small one, or one that `ddpm-bench extractor train` has made.

Only Inception with the published weights gives numbers that are called FID and IS, and that may stand beside published
ones.
"""

import hashlib
from pathlib import Path

from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.files import regular
from ddpm_bench.metrics.extractor import Extractor
from ddpm_bench.metrics.inception import INCEPTION_URL, find_weights, inception_network, read_weights
from ddpm_bench.metrics.small_cnn import RESERVED, SHIPPED, build, read_card
from ddpm_bench.records.record import ExtractorInfo

__all__ = ["Extractor", "load_extractor"]

SHIPPED_SHA256 = "1da9175c501e28366262d903095d3a928d0f3d01808b99d3bad1c6d02a410da7"


def load_extractor(
    name: str, *, size: int | None = None, inception_weights: Path | None = None, allow_unverified: bool = False,
    cache: Path,
) -> Extractor:  # fmt: skip
    """The extractor `name`: "inception", "embedded", or the path of a .safetensors file with its card beside it.

    `size`: the side in pixels of the images that it is to measure. `inception_weights`: a file to use instead of a
    download to `cache`. UserError when it cannot be had, is not what it says it is, or was not made for images of
    `size`.
    """
    if name == "inception":
        return _inception(inception_weights, allow_unverified, cache.expanduser())
    extractor = _shipped() if name == "embedded" else _own(_path(name))
    if size is not None:
        extractor.check_size(size, size)
    return extractor


def _inception(given: Path | None, allow_unverified: bool, cache: Path) -> Extractor:
    path = given or find_weights(cache, INCEPTION_URL)
    weights = read_weights(path, allow_unverified)
    try:
        network = inception_network(weights.state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"'{path}' holds weights of another network than torch-fidelity's Inception: {first}"
        ) from error
    mark = "" if weights.verified else " (unverified)"
    info = ExtractorInfo(
        name="inception",
        sha256=weights.sha256,
        verified=weights.verified,
        labels=(f"FID{mark}", f"IS{mark}"),
        feature_dim=2048,
    )
    return Extractor(info, network, channels=3, sizes=None, batch=64, image_bytes=32 * 2**20)


def _path(name: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix == ".json":
        path = path.with_suffix(".safetensors")
    if path.suffix != ".safetensors":
        raise UserError(
            f"Unknown extractor '{name}'{near_miss(name, RESERVED)} Or the path of a .safetensors file made by "
            "`ddpm-bench extractor train`."
        )
    return path


def _shipped() -> Extractor:
    return _small(SHIPPED, SHIPPED_SHA256, "embedded", "Install ddpm-bench again.")


def _own(path: Path) -> Extractor:
    card = read_card(path)
    if card.name in RESERVED:
        raise UserError(
            f"The extractor '{path}' calls itself '{card.name}', which is a name of ddpm-bench's own. Train it under "
            "another name."
        )
    return _small(path, card.sha256, card.name, "Train it again, or put the two files back together.")


def _small(path: Path, expected: str, name: str, remedy: str) -> Extractor:
    """The small extractor at `path`, shown as `name`, if its weights have the `expected` hash."""
    card = read_card(path)
    try:
        weights = regular(path).read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read the extractor '{path}': {error.strerror}. {remedy}") from error
    sha256 = hashlib.sha256(weights).hexdigest()
    if sha256 != expected:
        raise UserError(
            f"'{path}' is damaged or not the file of its card: its SHA-256 is {sha256}, expected {expected}. {remedy}"
        )
    info = ExtractorInfo(
        name=name, sha256=sha256, verified=True, labels=(f"FD ({name})", f"IS ({name})"), feature_dim=card.feature_dim
    )
    return Extractor(info, build(card, weights), card.channels, card.sizes, batch=256, image_bytes=4 * 2**20)
