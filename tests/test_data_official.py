"""cifar10, mnist, fashion-mnist and the choice of a source; torchvision's own code on small files, offline."""

import gzip
import hashlib
import pickle
import struct
import tarfile

import numpy as np
import pytest
from torchvision import datasets

import ddpm_bench.data as data_package
from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import SOURCES, load_data
from ddpm_bench.data.official import Official
from ddpm_bench.errors import UserError

NOWHERE = "http://127.0.0.1:9/"
RANDOM = np.random.default_rng(0)


def _idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    """root/MNIST/raw with 5 training and 3 test images of 28x28, and what is in them."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    stored = {}
    for prefix, count in (("train", 5), ("t10k", 3)):
        stored[prefix] = RANDOM.integers(0, 256, (count, 28, 28), np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(_idx(stored[prefix]))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(_idx(np.arange(count, dtype=np.uint8)))
    return tmp_path, raw, stored


SMALL_MNIST = Official("MNIST", 5, 3, "the four files", "MNIST/raw", "mirrors")
SMALL_CIFAR10 = Official("CIFAR10", 20, 4, "the archive", "", "url")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [NOWHERE])
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [NOWHERE])
    monkeypatch.setattr(datasets.CIFAR10, "url", NOWHERE + "cifar-10-python.tar.gz")


def test_mnist_files_that_lie_there_are_read_without_a_download(mnist):
    root, _, stored = mnist
    loaded = SMALL_MNIST.load(root)
    assert np.array_equal(loaded.train.images[:, 0].numpy(), stored["train"])
    assert np.array_equal(loaded.test.images[:, 0].numpy(), stored["t10k"])
    assert loaded.train.labels.tolist() == [0, 1, 2, 3, 4] and loaded.test.labels.tolist() == [0, 1, 2]
    assert loaded.classes[3] == "3 - three"


def test_packed_mnist_files_of_the_right_checksum_are_unpacked_without_a_download(mnist, monkeypatch):
    root, raw, stored = mnist
    resources = []
    for path in sorted(raw.iterdir()):
        packed = gzip.compress(path.read_bytes())
        (raw / f"{path.name}.gz").write_bytes(packed)
        path.unlink()
        resources.append((f"{path.name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    assert np.array_equal(SMALL_MNIST.load(root).train.images[:, 0].numpy(), stored["train"])


def test_mnist_files_with_another_number_of_images_are_refused(mnist):
    root, _, _ = mnist
    with pytest.raises(UserError, match=r"MNIST/raw' are not the official MNIST: 5 images where 60000 are due.*Remove"):
        load_data(DataSettings(source="mnist", root=root))


@pytest.mark.parametrize(
    "damage", [lambda b: b[:1000], lambda b: b"", lambda b: b"hello, this is no idx file", lambda b: b[:-784]]
)
def test_damaged_mnist_files_are_named_with_the_remedy(mnist, damage):
    root, raw, _ = mnist
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"MNIST is not complete in '.*MNIST/raw'.*put the four files"):
        SMALL_MNIST.load(root)


def test_images_without_their_labels_are_refused(mnist):
    root, raw, _ = mnist
    (raw / "train-labels-idx1-ubyte").write_bytes(_idx(np.arange(4, dtype=np.uint8)))
    with pytest.raises(UserError, match="5 images, but 4 labels"):
        SMALL_MNIST.load(root)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """root/cifar-10-batches-py with five training batches of 4 images and one test batch; checksums to match."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batches = {
        name: RANDOM.integers(0, 256, (4, 3072), np.uint8)
        for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    }

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    listed = [write(name, {"data": data, "labels": [0, 1, 2, 3]}) for name, data in batches.items()]
    _, md5 = write("batches.meta", {"label_names": ["airplane", "automobile", "bird", "cat"]})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", listed[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", listed[5:])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5})
    return tmp_path, folder, batches


def test_cifar10_files_that_lie_there_are_read_without_a_download(cifar10):
    root, _, batches = cifar10
    loaded = SMALL_CIFAR10.load(root)
    assert np.array_equal(loaded.train.images[4:8].reshape(4, 3072).numpy(), batches["data_batch_2"])
    assert np.array_equal(loaded.test.images.reshape(4, 3072).numpy(), batches["test_batch"])
    assert loaded.train.labels.tolist() == [0, 1, 2, 3] * 5
    assert loaded.classes == ("airplane", "automobile", "bird", "cat")
    assert loaded.train.images.is_contiguous() and loaded.train.images.shape == (20, 3, 32, 32)


def test_an_archive_of_the_right_checksum_is_unpacked_without_a_download(cifar10, monkeypatch):
    root, folder, batches = cifar10
    archive = root / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    for path in folder.iterdir():
        path.unlink()
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert np.array_equal(SMALL_CIFAR10.load(root).test.images.reshape(4, 3072).numpy(), batches["test_batch"])


def test_a_cifar10_file_of_another_checksum_is_never_unpickled(cifar10):
    root, folder, _ = cifar10

    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(root / 'sprung')!r}, 'w')",))

    (folder / "data_batch_3").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="CIFAR10 is not complete"):
        SMALL_CIFAR10.load(root)
    assert not (root / "sprung").exists()


@pytest.mark.parametrize(
    ("source", "place"),
    [("cifar10", "cifar-10-python.tar.gz"), ("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw")],
)
def test_a_failed_download_names_the_address_and_every_way_out(tmp_path, source, place):
    with pytest.raises(UserError) as raised:
        load_data(DataSettings(source=source, root=tmp_path / "data"))
    for said in (NOWHERE, str(tmp_path / "data"), place, "--data-root", "embedded"):
        assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_data_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write to the folder '.*file/data'"):
        load_data(DataSettings(source="cifar10", root=tmp_path / "file" / "data"))


def test_a_full_disk_is_not_mistaken_for_a_missing_network(tmp_path, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.CIFAR10, "download", full)
    with pytest.raises(OSError, match="No space left") as raised:
        SMALL_CIFAR10.load(tmp_path)
    assert not isinstance(raised.value, UserError)


def test_downloads_go_to_the_cache_folder_unless_a_root_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(data_package, "DEFAULT_ROOT", tmp_path / "cache")
    with pytest.raises(UserError, match=str(tmp_path / "cache")):
        load_data(DataSettings(source="mnist"))


# The choice of a source.


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("fashion-mnst", r"Unknown data source 'fashion-mnst'; did you mean 'fashion-mnist'\?"),
        ("cifar-10", r"did you mean 'cifar10'\?"),
        ("foldr:/x", r"did you mean 'folder'\?.*folder:PATH and npz:PATH"),
        ("/some/folder", r"Unknown data source '/some/folder'.*Known: embedded.*folder:PATH"),
        ("folder", "needs a path: write 'folder:PATH'"),
        ("npz:", "needs a path: write 'npz:PATH'"),
        ("embedded:x", "takes no path: write 'embedded'"),
    ],
)
def test_an_unknown_or_misspelt_source_is_named_with_the_nearest_one(source, said):
    with pytest.raises(UserError, match=said):
        load_data(DataSettings(source=source))


def test_every_source_of_the_manual_is_there():
    assert [source.form for source in SOURCES.values()] == [
        "embedded",
        "cifar10",
        "mnist",
        "fashion-mnist",
        "folder:PATH",
        "npz:PATH",
    ]
    assert all(source.form.split(":")[0] == word for word, source in SOURCES.items())
