"""Images to train on and to compare with: named sources and the user's own -> uint8 (N, C, H, W), train and test."""

from pathlib import Path

from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data.image_files import read_images, write_images
from ddpm_bench.data.images import ImageData, Split, content_hash, fit_to, to_model, to_uint8
from ddpm_bench.data.sources import SOURCES
from ddpm_bench.errors import UserError, near_miss

__all__ = [
    "SOURCES",
    "ImageData",
    "Split",
    "fit_to",
    "load_data",
    "read_images",
    "to_model",
    "to_uint8",
    "write_images",
]

DEFAULT_ROOT = Path("~/.cache/ddpm-bench/data")
"""Where downloads go unless `data.root` names another folder."""


def load_data(settings: DataSettings) -> ImageData:
    """Both splits of `settings.source`, fitted to `settings.size`, held as uint8.

    Raises UserError, naming the file and the remedy, for whatever is wrong with the source; nothing is half-loaded.
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
    loaded = source.load(path, (settings.root or DEFAULT_ROOT).expanduser())
    try:
        train, test = (
            Split(fit_to(split.images, settings.size), split.labels) for split in (loaded.train, loaded.test)
        )
    except UserError as error:
        raise UserError(f"Data source '{settings.source}': {error}") from error
    name = settings.name or source.name(path)
    return ImageData(name, train, test, content_hash(train.images, test.images), loaded.classes)
