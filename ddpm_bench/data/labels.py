"""The classes of a data set as a network that is told them needs them."""

import hashlib

from torch import Tensor

from ddpm_bench.config.metrics import SplitName
from ddpm_bench.data.images import ImageData
from ddpm_bench.errors import UserError


def class_count(data: ImageData) -> int:
    """How many classes the data set has; 0 where it has no labels."""
    seen = _seen(data)
    return seen and (len(data.classes) or seen)


def told_apart(data: ImageData, learner: str) -> tuple[str, ...]:
    """The names of the classes that `learner`, such as "a classifier", learns to tell apart, in the order of their numbers.
    UserError where there are no labels, or only one class."""
    seen = _seen(data)
    if not seen:
        raise UserError(
            f"The data set '{data.name}' has no labels, which {learner} is trained on. For images in a folder: one folder for each "
            "class, as in train/cat/1.png and test/cat/2.png."
        )
    if seen < 2:
        raise UserError(f"The data set '{data.name}' has one class only; {learner} learns to tell at least two apart.")
    return data.classes or tuple(str(label) for label in range(seen))


def _seen(data: ImageData) -> int:
    """One more than the largest label; 0 where a split has none."""
    if data.train.labels is None or data.test.labels is None:
        return 0
    return 1 + int(max(data.train.labels.max(), data.test.labels.max()))


def check_labels(classes: int, data: ImageData) -> None:
    """UserError where a network of so many classes cannot be told those of the data; 0: it is told none."""
    count = class_count(data)
    if classes and not count:
        raise UserError(
            f"The network has {classes} classes, and the data set '{data.name}' has no labels. Use labelled data (in a folder: one "
            "folder for each class), or network.classes=0."
        )
    if classes and classes != count:
        raise UserError(
            f"The network has {classes} classes, and the data set '{data.name}' has {count}. Use network.classes={count}, or the "
            "data that the network is of."
        )


def labels_for(classes: int, data: ImageData, split: SplitName) -> Tensor | None:
    """What a network of so many classes is told of the images of a split, int64 (N,); None where it is told nothing."""
    check_labels(classes, data)
    return getattr(data, split).labels if classes else None


def labels_sha256(labels: Tensor | None) -> dict[str, str]:
    """The hash of labels, by name, for what depends on them; nothing where there are none."""
    if labels is None:
        return {}
    return {"labels_sha256": hashlib.sha256(labels.cpu().numpy().astype("<i8").tobytes()).hexdigest()}
