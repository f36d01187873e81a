"""Images to train on and to compare with: named sources and the user's own -> uint8 (N, C, H, W), train and test."""

from pathlib import Path

import torch
from torch import Tensor

from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data.image_files import read_images, write_images
from ddpm_bench.data.images import ImageData, Split, check_levels, content_hash, to_model, to_uint8
from ddpm_bench.data.loaded import Loaded, Unread
from ddpm_bench.data.mapped import read_once
from ddpm_bench.data.resize import Size, averaged, fitted
from ddpm_bench.data.sources import SOURCES
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.runtime.observer import noting, say

__all__ = [
    "SOURCES",
    "ImageData",
    "Split",
    "fitted",
    "load_data",
    "read_images",
    "to_model",
    "to_uint8",
    "write_images",
]

DEFAULT_ROOT = Path("~/.cache/ddpm-bench/data")
"""Where downloads, and images that are not held, go unless `data.root` names another folder."""


def load_data(settings: DataSettings, size: Size | None = None) -> ImageData:
    """Both splits of `settings.source` at `size`, (H, W), or else at settings.size x settings.size, as uint8.

    They are held, or mapped from a file where a folder is too large for that (`mapped.py`).

    Raises UserError, naming the file and the remedy, for whatever is wrong with the source, and for images of another
    size unless `settings.resize` says how to fit them; nothing is half-loaded. What is said meanwhile is noted.
    """
    word, _, text = settings.source.partition(":")
    source = SOURCES.get(word)
    if source is None:
        with_path = " and ".join(known.form for known in SOURCES.values() if known.takes_path)
        raise UserError(
            f"Unknown data source '{settings.source}'" + near_miss(word, SOURCES) + f" With a path: {with_path}."
        )
    if source.takes_path != bool(text):
        need = "needs a" if source.takes_path else "takes no"
        raise UserError(f"The data source '{settings.source}' {need} path: write '{source.form}'.")
    path, root = Path(text).expanduser(), (settings.root or DEFAULT_ROOT).expanduser()
    name = settings.name or source.name(path)
    with noting() as notes:
        loaded, side = source.load(path, root), settings.averaged_from or settings.size
        train, test, sha256 = _prepared(loaded, name, settings, size or (side, side), root / "images")
        averages = settings.averaged_from is not None and size is None
        if averages:
            say(f"The images of '{name}' are averaged from {side}x{side} to {settings.size}x{settings.size} pixels")
    data = ImageData(name, train, test, sha256, loaded.classes, tuple(notes))
    return small_data(data, settings.size) if averages else data


def small_data(data: ImageData, side: int) -> ImageData:
    """The same images averaged to `side` pixels: what a model below one of these images learns."""
    train, test = (Split(averaged(split.images, side), split.labels) for split in (data.train, data.test))
    return ImageData(data.name, train, test, content_hash(train.images, test.images), data.classes, data.notes)


def _prepared(
    loaded: Loaded | Unread, name: str, settings: DataSettings, size: Size, folder: Path
) -> tuple[Split, Split, str]:
    """The training and the test images at `size`, and the hash of their contents. `folder`: of those that are not held."""
    done, sha256 = "", ""
    if isinstance(loaded, Unread):
        _, done = _fitted(torch.zeros((1, *loaded.shape), dtype=torch.uint8), size, settings)
        loaded, sha256 = read_once(loaded, size, settings.resize, folder)
    for split, images in (("training", loaded.train.images), ("test", loaded.test.images)):
        check_levels(images, f"The {split} images of '{name}'")
    train, now = _fitted(loaded.train.images, size, settings)
    test, _ = _fitted(loaded.test.images, size, settings)
    if done := done or now:
        say(f"The images of '{name}' are {done}")
    return Split(train, loaded.train.labels), Split(test, loaded.test.labels), sha256 or content_hash(train, test)


def _fitted(images: Tensor, size: Size, settings: DataSettings) -> tuple[Tensor, str]:
    """`fitted`, whose UserError names the source."""
    try:
        return fitted(images, size, settings.resize)
    except UserError as error:
        raise UserError(f"Data source '{settings.source}': {error}") from error
