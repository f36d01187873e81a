"""Images as files: folders of PNG, JPEG or WebP, and .npz archives, read into uint8 and written from it.

A pixel is taken as it is stored or the file is refused: nothing is converted in silence, so palettes, transparency,
16-bit levels and mixed sizes or modes are errors that name the file.
"""

import contextlib
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from ddpm_bench.data.loaded import describe
from ddpm_bench.data.npz import read_npz
from ddpm_bench.errors import UserError
from ddpm_bench.files import check_unfolding, make_folder, regular, replacing
from ddpm_bench.runtime.observer import progress
from ddpm_bench.text import brief

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
NO_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PDF")
"""What Pillow knows by its suffix beside formats of pictures: documents, arrays, films."""
CHANNELS = {"L": 1, "RGB": 3}
PATIENCE_S = 2.0
"""Work that takes longer than this shows its progress."""


@dataclass(frozen=True)
class Listing:
    """The image files of a folder in sorted order; with class folders, `classes` in sorted order and a label a file.

    passed_over: names of what is hidden or no image.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    passed_over: tuple[str, ...] = ()


def list_images(folder: Path, recursive: bool = False) -> Listing:
    """The images that lie in `folder`, or in its subfolders, one a class; recursive: at any depth, and no classes.

    UserError for: no such folder; no images; images beside class folders; folders in class folders; unread formats; a
    folder inside itself.
    """
    if recursive:
        return _listing(folder, *_below(folder, set()))
    files, classes, passed_over = _contents(folder)
    if files and classes:
        raise UserError(
            f"The folder '{folder}' holds both images ('{files[0].name}') and folders ('{classes[0].name}'). "
            "Use images only, or one folder a class and nothing beside them; `evaluate --samples --recursive` takes both."
        )
    labels: list[int] = []
    for label, class_folder in enumerate(classes):
        inside, deeper, other = _contents(class_folder)
        if deeper:
            raise UserError(
                f"The class folder '{class_folder}' holds a folder '{deeper[0].name}'. Class folders hold images only; "
                "`evaluate --samples --recursive` takes any depth."
            )
        files += inside
        passed_over += other
        labels += [label] * len(inside)
    return _listing(folder, files, passed_over, labels, [path.name for path in classes])


def _listing(
    folder: Path,
    files: Sequence[Path],
    passed_over: Sequence[str],
    labels: Sequence[int] = (),
    classes: Sequence[str] = (),
) -> Listing:
    if not files:
        raise UserError(f"The folder '{folder}' holds no images ({', '.join(SUFFIXES)}).")
    return Listing(tuple(files), tuple(labels), tuple(classes), tuple(passed_over))


def _below(folder: Path, seen: set[Path]) -> tuple[list[Path], list[str]]:
    """Image files in `folder` and, after them, in each of its folders; and what was passed over. `seen`: folders so far."""
    if (real := folder.resolve()) in seen:
        raise UserError(f"The folder '{folder}' is a link to one whose images are counted already. Remove the link.")
    seen.add(real)
    files, folders, passed_over = _contents(folder)
    for inside in folders:
        more, other = _below(inside, seen)
        files += more
        passed_over += other
    return files, passed_over


def told_passed_over(where: Path | str, names: Sequence[str]) -> str:
    """What is said, once, of what lies beside images and is none."""
    shown = ", ".join([*names[:6], *["..."] * (len(names) > 6)])
    return f"Passed over {len(names)} of what lies in '{where}', hidden or no images: {shown}"


def read_files(paths: Sequence[Path], title: str = "Reading images") -> Tensor:
    """Image files of one size and mode -> uint8 (N, C, H, W), C = 1 for grey and 3 for colour.

    UserError naming the file that is unreadable, or that differs from the first one.
    """
    first = _read_file(paths[0])
    check_unfolding(len(paths) * first.nbytes, sum(_size(path) for path in paths), f"The folder '{paths[0].parent}'")
    images = np.empty((len(paths), *first.shape), np.uint8)
    with _patient_progress(title, len(paths)) as tick:
        for index, path in enumerate(paths):
            pixels = _read_file(path)
            if pixels.shape != first.shape:
                raise UserError(
                    f"'{path}' is {describe(pixels.shape)}, but '{paths[0]}' is {describe(first.shape)}. "
                    "All images must have one size and mode: convert or remove the ones that differ."
                )
            images[index] = pixels
            tick(index + 1)
    return torch.from_numpy(images)


def read_images(path: Path, key: str | None = None) -> Tensor:
    """Anyone's images, uint8 (N, C, H, W): a folder (class folders allowed), or an .npz archive as for `read_npz`."""
    if path.is_dir():
        if key is not None:
            raise UserError(f"The key {brief(key)} names an array of an .npz archive, and '{path}' is a folder.")
        return read_files(list_images(path).paths)
    if not path.is_file():
        raise UserError(f"There is nothing at '{path}'. Give a folder of PNG, JPEG or WebP images, or an .npz archive.")
    if path.suffix.lower() != ".npz":
        raise UserError(f"'{path}' is neither a folder nor an .npz archive. Give the folder that holds the images.")
    return read_npz(path, key)


def write_images(path: Path, images: Tensor, labels: Tensor | None = None) -> None:
    """Write uint8 (N, C, H, W) to an .npz archive (`images`, (N, H, W, C), and `labels`, int64 (N,), where there are any), or as
    000000.png, ... to a folder, which has no place for labels.

    Each file is written atomically. A folder that holds other images is refused, since the two sets would be mixed.
    """
    if (
        images.dtype != torch.uint8
        or images.ndim != 4
        or images.shape[1] not in CHANNELS.values()
        or not images.numel()
    ):
        raise UserError(
            "Images to write must be uint8 (N, C, H, W) with 1 or 3 channels, "
            f"not {images.dtype} {tuple(images.shape)}. "
            "Convert values in [-1, 1] with to_uint8."
        )
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    if path.suffix.lower() == ".npz":
        with replacing(path) as temporary, temporary.open("wb") as stream:
            if labels is None:
                np.savez(stream, images=pixels)
            else:
                np.savez(stream, images=pixels, labels=labels.numpy())
        return
    names = [f"{index:06d}.png" for index in range(len(pixels))]
    foreign = {entry.name for entry in make_folder(path).iterdir() if entry.suffix.lower() in SUFFIXES} - set(names)
    if foreign:
        raise UserError(
            f"The folder '{path}' holds other images ('{min(foreign)}'). Choose a new folder, or remove them."
        )
    with _patient_progress("Writing images", len(pixels)) as tick:
        for index, (name, image) in enumerate(zip(names, pixels, strict=True)):
            with replacing(path / name) as temporary:
                Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(temporary, "PNG")
            tick(index + 1)


def _contents(folder: Path) -> tuple[list[Path], list[Path], list[str]]:
    """Image files and folders in `folder`, and the names of what is hidden or neither; each sorted by name."""
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)  # paths themselves sort otherwise on Windows
    except OSError as error:
        raise UserError(
            f"The folder '{folder}' cannot be read: {error.strerror}. Check the path and its permissions."
        ) from error
    pictures = {suffix for suffix, kind in Image.registered_extensions().items() if kind not in NO_PICTURES}
    files, folders, passed_over = [], [], []
    for entry in entries:
        hidden, suffix = entry.name.startswith("."), entry.suffix.lower()
        if not hidden and entry.is_dir():
            folders.append(entry)
        elif not hidden and suffix in SUFFIXES:
            files.append(entry)
        elif not hidden and suffix in pictures and entry.is_file():
            raise UserError(
                f"'{entry}' is an image of a format that is not read ({', '.join(SUFFIXES)} are). Convert or remove it."
            )
        else:
            passed_over.append(entry.name)
    return files, folders, passed_over


def _read_file(path: Path) -> np.ndarray:
    """One image file -> uint8 (C, H, W)."""
    try:
        with Image.open(regular(path), formats=FORMATS) as image:
            _check_pixels(image, path)
            pixels = np.asarray(ImageOps.exif_transpose(image) if "exif" in image.info else image)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(
            f"'{path}' is not a PNG, JPEG or WebP image, whatever its name says. Replace or remove it."
        ) from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        raise UserError(f"The image '{path}' cannot be read: {error}. Replace or remove it.") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check_pixels(image: ImageFile.ImageFile, path: Path) -> None:
    """Refuse what cannot be taken as 8-bit grey or colour levels without changing it, and a claim of too many of them."""
    check_unfolding(image.width * image.height * len(image.getbands()), _size(path), f"The image '{path}'")
    # Pillow cuts 16-bit colour down to 8 bits in silence; only the raw mode of what is still to be decoded tells.
    if any("16" in str(tile.args) for tile in image.tile):
        problem = "has 16 bits a channel"
    elif image.mode == "P":
        problem = "has a palette"
    elif image.has_transparency_data:
        problem = "has transparency"
    elif image.mode not in CHANNELS:
        problem = f"has the mode {image.mode}"
    elif getattr(image, "is_animated", False) and image.format != "MPO":
        problem = "is animated"
    else:
        return
    raise UserError(
        f"The image '{path}' {problem}; images must be 8-bit grey or RGB. Convert it, for instance to an RGB PNG."
    )


def _size(path: Path) -> int:
    """Bytes of a file; 0 of one that is gone, which is said where it is read."""
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _patient_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield `tick(done)`, which shows a progress bar from the moment on that the work has taken PATIENCE_S."""
    began, meter = time.monotonic(), None
    with contextlib.ExitStack() as stack:

        def tick(done: int) -> None:
            nonlocal meter
            if meter is None and time.monotonic() - began > PATIENCE_S:
                meter = stack.enter_context(progress(title, total, "images", done))
            if meter is not None:
                meter.update(done)

        yield tick
