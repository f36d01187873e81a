"""`folder:PATH`: PATH/train and PATH/test, each with images, or with one folder of images a class."""

import math
from pathlib import Path

import torch
from torch import Tensor

from ddpm_bench.data.image_files import Listing, first_shape, list_images, read_files, told_passed_over
from ddpm_bench.data.images import Split
from ddpm_bench.data.loaded import Loaded, Unread, check_alike
from ddpm_bench.errors import UserError
from ddpm_bench.runtime.observer import say

HELD = 2**30
"""Bytes of a folder's images, as they are in it, up to which they are held in memory."""


def load_folder(path: Path) -> Loaded | Unread:
    """The images below `path` in sorted order, labelled by their class folder. UserError naming the file that is amiss.

    Where they are too many to hold, they are not read yet. Both splits are listed and compared before the first pixel is read.
    """
    if not path.is_dir():
        raise UserError(f"There is no folder '{path}'. Give one that holds the folders 'train' and 'test' with images.")
    for split in ("train", "test"):
        if not (path / split).is_dir():
            names = sorted(entry.name for entry in path.iterdir())
            there = ", ".join(names[:6] + ["..."] * (len(names) > 6)) or "nothing"
            raise UserError(
                f"There is no folder '{path / split}'; '{path}' holds: {there}. It needs 'train' and 'test'."
            )
    train, test = list_images(path / "train"), list_images(path / "test")
    if train.classes != test.classes:
        lone = sorted(set(train.classes) ^ set(test.classes))[0]
        where, other = ("train", "test") if lone in train.classes else ("test", "train")
        raise UserError(
            f"'{path}' has the class folder '{where}/{lone}' but no '{other}/{lone}'. "
            "Use the same class folders in both, or none."
        )
    if beside := sorted(entry.name for entry in path.iterdir() if entry.name not in ("train", "test")):
        say(told_passed_over(path, beside))
    for split, listing in {"train": train, "test": test}.items():
        if listing.passed_over:
            say(told_passed_over(path / split, listing.passed_over))
    shape, of_test = first_shape(train.paths), first_shape(test.paths)
    check_alike(shape, of_test, f"'{path}'")
    labels = _labels(train), _labels(test)
    if (len(train.paths) + len(test.paths)) * math.prod(shape) > HELD:
        return Unread(train.paths, test.paths, shape, labels, train.classes)
    images = [
        read_files(listing.paths, f"Reading {title} images") for title, listing in (("train", train), ("test", test))
    ]
    return Loaded(Split(images[0], labels[0]), Split(images[1], labels[1]), train.classes)


def _labels(listing: Listing) -> Tensor | None:
    return torch.tensor(listing.labels, dtype=torch.int64) if listing.classes else None
