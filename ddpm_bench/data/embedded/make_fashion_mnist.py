"""Make `fashion-mnist-10k.npz` from the official Fashion-MNIST files: `python make_fashion_mnist.py FOLDER [OUT.npz]`.

Takes the first 1,000 training and the first 200 test images of each class in their official order, pixels unchanged.
FOLDER holds train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the same two named t10k-; on Debian:
`apt install dataset-fashion-mnist`, FOLDER = /usr/share/datasets/fashion-mnist. Needs numpy alone.
"""

import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

# SHA-256 of what is inside the .gz files. These differ between distributors by the name and time that gzip notes
# in its header (Debian removes them), so the MD5 sums that Zalando publishes fit only some copies; see README.md.
CONTENT_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
TRAIN_PER_CLASS, TEST_PER_CLASS = 1000, 200


def read_idx(content: bytes) -> np.ndarray:
    """An idx file: 0, 0, type (8: unsigned byte), number of axes, their lengths (big-endian, 32 bits), values."""
    if content[:3] != b"\0\0\x08":
        raise ValueError("not an idx file of unsigned bytes")
    axes = content[3]
    lengths = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(lengths)


def read_official(folder: Path, sha256: dict[str, str] = CONTENT_SHA256) -> dict[str, np.ndarray]:
    """The arrays of the official files by name. ValueError for a file whose content is not the published one."""
    arrays = {}
    for name, expected in sha256.items():
        content = gzip.decompress((folder / f"{name}.gz").read_bytes())
        if (found := hashlib.sha256(content).hexdigest()) != expected:
            raise ValueError(
                f"{folder / name}.gz holds content of SHA-256 {found}, not the official {expected}: fetch it again"
            )
        arrays[name] = read_idx(content)
    return arrays


def first_of_each_class(images: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` (N, 28, 28) images of each class and their labels, in the order they had."""
    kept = np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))
    return images[kept], labels[kept]


def subset(official: dict[str, np.ndarray], train_per_class: int, test_per_class: int) -> dict[str, np.ndarray]:
    """What goes into the file: the keys that ddpm-bench's own `npz:PATH` source reads."""
    train, train_labels = first_of_each_class(
        official["train-images-idx3-ubyte"], official["train-labels-idx1-ubyte"], train_per_class
    )
    test, test_labels = first_of_each_class(
        official["t10k-images-idx3-ubyte"], official["t10k-labels-idx1-ubyte"], test_per_class
    )
    return {
        "train": train,
        "train_labels": train_labels,
        "test": test,
        "test_labels": test_labels,
        "classes": np.array(CLASSES),
    }


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """An .npz whose bytes depend on the arrays alone: no times, and LZMA, since deflate has many encoders."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system, member.compress_type = 3, zipfile.ZIP_LZMA
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            archive.writestr(member, content.getvalue())
    return packed.getvalue()


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    out = Path(arguments[1]) if len(arguments) == 2 else Path(__file__).with_name("fashion-mnist-10k.npz")
    try:
        official = read_official(Path(arguments[0]))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    content = pack(subset(official, TRAIN_PER_CLASS, TEST_PER_CLASS))
    out.write_bytes(content)
    print(f"{out}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
