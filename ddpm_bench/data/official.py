"""`cifar10`, `mnist`, `fashion-mnist`: the complete data sets, through torchvision's downloaders and their checksums.

torchvision unpickles CIFAR-10's official files, but only after their MD5 sums are the published ones.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from ddpm_bench.data.images import Split
from ddpm_bench.data.loaded import Loaded
from ddpm_bench.errors import UserError
from ddpm_bench.files import make_folder


@dataclass(frozen=True)
class Official:
    """A class of torchvision.datasets, how many images it has, and what a user without a network puts where."""

    dataset: str
    train_images: int
    test_images: int
    files: str
    place: str  # below the root
    address: str  # the attribute of the class that says where it downloads from

    def load(self, root: Path) -> Loaded:
        """Both splits, downloaded into `root` only if they do not lie there. UserError where they cannot be had."""
        from torchvision import datasets  # a second to import, and the other sources do without it

        kind = getattr(datasets, self.dataset)
        place = root / self.place
        try:
            train, classes = _read(kind, root, train=True)
            test, _ = _read(kind, root, train=False)
        except UserError:
            raise
        except (OSError, RuntimeError, ValueError, TypeError, AssertionError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{self.dataset} is not complete in '{place}' and could not be fetched from "
                f"{getattr(kind, self.address)}: {' '.join(str(error).split())}. "
                f"Try again with a network, put {self.files} into '{place}' yourself, "
                "name the folder that has them with --data-root, or use the source 'embedded', which needs no network."
            ) from error
        for split, due in ((train, self.train_images), (test, self.test_images)):
            if len(split) != due:
                raise UserError(
                    f"The files in '{place}' are not the official {self.dataset}: {len(split)} images "
                    f"where {due} are due. Remove them, and they are fetched again."
                )
        return Loaded(train, test, classes)


def _read(kind: Callable[..., Any], root: Path, train: bool) -> tuple[Split, tuple[str, ...]]:
    """One split and the names of its classes; downloads only what is not there."""
    try:
        split = kind(root, train=train)
    except RuntimeError:  # torchvision's word for files that are missing or not complete
        split = kind(make_folder(root), train=train, download=True)
    images, labels = torch.as_tensor(split.data), torch.as_tensor(split.targets, dtype=torch.int64)
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images, but {len(labels)} labels")
    # (N, H, W) grey or (N, H, W, C) colour
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return Split(images, labels), tuple(split.classes)
