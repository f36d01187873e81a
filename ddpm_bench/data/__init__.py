"""Images to train on and to compare with: named sources and the user's own -> uint8 (N, C, H, W), train and test."""

from pathlib import Path

from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data.image_files import read_images, write_images
from ddpm_bench.data.images import ImageData, Split, check_levels, content_hash, to_model, to_uint8
from ddpm_bench.data.loaded import Loaded
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
"""Where downloads go unless `data.root` names another folder."""


def load_data(settings: DataSettings, size: Size | None = None) -> ImageData:
    """Both splits of `settings.source` at `size`, (H, W), or else at settings.size x settings.size, held as uint8.

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
    path = Path(text).expanduser()
    name = settings.name or source.name(path)
    with noting() as notes:
        loaded = source.load(path, (settings.root or DEFAULT_ROOT).expanduser())
        side = settings.averaged_from or settings.size
        train, test = _prepared(loaded, name, settings, size or (side, side))
        if settings.averaged_from and size is None:
            train, test = _smaller(train, settings.size), _smaller(test, settings.size)
            say(f"The images of '{name}' are averaged from {side}x{side} to {settings.size}x{settings.size} pixels")
    return ImageData(name, train, test, content_hash(train.images, test.images), loaded.classes, tuple(notes))


def small_data(data: ImageData, side: int) -> ImageData:
    """The same images averaged to `side` pixels: what a model below one of these images learns."""
    train, test = _smaller(data.train, side), _smaller(data.test, side)
    return ImageData(data.name, train, test, content_hash(train.images, test.images), data.classes, data.notes)


def _smaller(split: Split, side: int) -> Split:
    return Split(averaged(split.images, side), split.labels)


def _prepared(loaded: Loaded, name: str, settings: DataSettings, size: Size) -> tuple[Split, Split]:
    """The training and the test images at `size`."""
    for split, images in (("training", loaded.train.images), ("test", loaded.test.images)):
        check_levels(images, f"The {split} images of '{name}'")
    try:
        train, done = fitted(loaded.train.images, size, settings.resize)
        test, _ = fitted(loaded.test.images, size, settings.resize)
    except UserError as error:
        raise UserError(f"Data source '{settings.source}': {error}") from error
    if done:
        say(f"The images of '{name}' are {done}")
    return Split(train, loaded.train.labels), Split(test, loaded.test.labels)
