"""Every source of images, by the word that names it. One entry here adds one."""

from ddpm_bench.data.folder import load_folder
from ddpm_bench.data.loaded import Source
from ddpm_bench.data.npz import load_embedded, load_npz
from ddpm_bench.data.official import Official

_CIFAR10 = Official("CIFAR10", 50_000, 10_000, "'cifar-10-python.tar.gz'", "", "url")
_MNIST = Official("MNIST", 60_000, 10_000, "the four '*-ubyte' files, unpacked,", "MNIST/raw", "mirrors")
_FASHION_MNIST = Official(
    "FashionMNIST", 60_000, 10_000, "the four '*-ubyte' files, unpacked,", "FashionMNIST/raw", "mirrors"
)

SOURCES: dict[str, Source] = {
    "embedded": Source("embedded", lambda path, root: load_embedded(), lambda path: "fashion-mnist-10k"),
    "cifar10": Source("cifar10", lambda path, root: _CIFAR10.load(root), lambda path: "cifar10"),
    "mnist": Source("mnist", lambda path, root: _MNIST.load(root), lambda path: "mnist"),
    "fashion-mnist": Source(
        "fashion-mnist", lambda path, root: _FASHION_MNIST.load(root), lambda path: "fashion-mnist"
    ),
    "folder": Source("folder:PATH", lambda path, root: load_folder(path), lambda path: path.resolve().name),
    "npz": Source("npz:PATH", lambda path, root: load_npz(path), lambda path: path.stem),
}
