"""Folders too large to hold: their images come out of a mapped file, and nothing that is measured differs."""

import io
import json
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.settings import DataSettings, TrainingSettings
from ddpm_bench.data import folder, load_data, mapped
from ddpm_bench.data.images import content_hash
from ddpm_bench.data.mapped import MappedImages
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import LSimple
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.times import Uniform
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.errors import UserError
from ddpm_bench.metrics.neighbours import nearest
from ddpm_bench.networks.unet import UNet
from ddpm_bench.training import batches
from ddpm_bench.training.batches import Batches
from ddpm_bench.training.trainer import Trainer, Training


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """photos/{train,test}/{a,b}/N.png: 12 and 6 colour images of 16x16; nothing is held, and three are read at once."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for name in "ab":
            (place := tmp_path / "photos" / split / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(place / f"{index}.png")
    monkeypatch.setattr(mapped, "AT_ONCE", 3 * 16 * 16 * 3)
    return tmp_path / "photos"


def loaded(photos, held: int, **options):
    """The data set, with so many bytes of it held at most."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "HELD", held)
        return load_data(
            DataSettings(**{"source": f"folder:{photos}", "size": 16, "root": photos.parent / "root"} | options)
        )


def files(photos):
    return sorted(path for path in (photos.parent / "root" / "images").iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize(
    "options",
    [{}, {"size": 8, "resize": "average"}, {"size": 20, "resize": "pad"}, {"size": 12, "resize": "bicubic-antialias"}],
)
def test_a_mapped_data_set_is_the_held_one_in_pixels_labels_hash_and_notes(photos, options) -> None:
    held, out_of_file = loaded(photos, 2**30, **options), loaded(photos, 0, **options)
    for split in ("train", "test"):
        a, b = getattr(held, split), getattr(out_of_file, split)
        assert type(a.images) is torch.Tensor and type(b.images) is MappedImages
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    assert (held.sha256, held.classes, held.notes, held.name, held.shape) == (
        out_of_file.sha256, out_of_file.classes, out_of_file.notes, out_of_file.name, out_of_file.shape,
    )  # fmt: skip
    assert held.sha256 == content_hash(out_of_file.train.images, out_of_file.test.images)


def test_images_are_held_up_to_a_size_and_mapped_beyond_it(photos) -> None:
    total = 18 * 3 * 16 * 16
    assert type(loaded(photos, total).train.images) is torch.Tensor
    assert type(loaded(photos, total - 1).train.images) is MappedImages


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks the mapping up where Linux tells it")
def test_no_pixel_is_copied_and_what_is_made_of_mapped_images_is_a_plain_tensor(photos) -> None:
    images = loaded(photos, 0).train.images
    assert isinstance(images.numpy().base, torch.Tensor) and len(files(photos)) == 2
    where, number = images.data_ptr(), images[0].numel()
    mapping = [line.split() for line in open("/proc/self/maps") if line.rstrip().endswith(".images")]  # noqa: SIM115
    ends = [[int(end, 16) for end in line[0].split("-")] for line in mapping]
    assert any(start <= where and where + 12 * number <= end for start, end in ends)
    assert all(line[1].startswith("r--") for line in mapping)
    for made in (images[torch.tensor([3, 1])], images[2:4], images[0], images.float(), images.split(2)[0]):
        assert type(made) is torch.Tensor


def test_a_few_images_are_in_memory_at_a_time_while_the_file_is_made(photos, monkeypatch) -> None:
    sizes, fitted = [], mapped.fitted
    monkeypatch.setattr(mapped, "fitted", lambda images, *how: sizes.append(len(images)) or fitted(images, *how))
    loaded(photos, 0)
    assert sizes == [3, 3, 3, 3, 3, 3]


def test_the_file_is_made_once_and_again_where_a_file_of_the_folder_has_changed(photos, monkeypatch) -> None:
    first = loaded(photos, 0)
    kept = files(photos)
    with monkeypatch.context() as patch:
        patch.setattr(mapped, "each_file", None)  # nothing is decoded
        assert loaded(photos, 0).sha256 == first.sha256 and files(photos) == kept
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(photos / "train" / "a" / "0.png")
    changed = loaded(photos, 0)
    assert changed.sha256 != first.sha256 and len(files(photos)) == 4
    assert not changed.train.images[0].any()


@pytest.mark.parametrize("damage", ["a flipped bit", "cut off", "gone", "seal"])
def test_a_damaged_file_is_found_and_made_again(photos, damage: str) -> None:
    first = loaded(photos, 0)
    pixels = first.test.images.clone()
    (images,), (seal,) = ([path for path in files(photos) if path.suffix == suffix] for suffix in (".images", ".json"))
    content = bytearray(images.read_bytes())
    if damage == "seal":
        seal.write_text(json.dumps({"sha256": "0" * 64}))
    elif damage == "gone":
        images.unlink()
    else:
        content[-5] ^= 1
        images.write_bytes(content if damage == "a flipped bit" else content[:-1])
    again = loaded(photos, 0)
    assert again.sha256 == first.sha256 and torch.equal(again.test.images, pixels)


def test_a_disk_without_room_is_said_with_what_is_wanted_and_the_remedy(photos, monkeypatch) -> None:
    monkeypatch.setattr(mapped.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 13_000}))
    with pytest.raises(UserError, match=r"18 images .* 0\.0 GB.*--data-root"):
        loaded(photos, 0)
    assert not files(photos)


def test_an_image_that_differs_is_named_and_leaves_nothing(photos) -> None:
    Image.fromarray(np.zeros((16, 17, 3), np.uint8)).save(photos / "test" / "b" / "1.png")
    with pytest.raises(UserError, match=r"b/1\.png' is colour 17x16"):
        loaded(photos, 0)
    assert not files(photos)
    with pytest.raises(UserError, match=r"Data source 'folder:.* none are resized unasked"):
        loaded(photos, 0, size=32)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_another_process_is_sent_the_place_of_mapped_images_and_not_their_pixels(photos, how: str) -> None:
    data, buffer = loaded(photos, 0), io.BytesIO()
    if how == "pickle":
        buffer.write(pickle.dumps(data.test))
    else:
        torch.save(data.test, buffer)
    assert buffer.tell() < 2500 and data.test.images.nbytes > 4000
    buffer.seek(0)
    sent = pickle.load(buffer) if how == "pickle" else torch.load(buffer, weights_only=False, map_location="cpu")
    assert type(sent.images) is MappedImages and torch.equal(sent.images, data.test.images)
    for path in files(photos):
        path.unlink()
    with pytest.raises(UserError, match=r"cannot be mapped.*--data-root"):
        pickle.loads(pickle.dumps(data.test))


def trained(images: torch.Tensor, place) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = UNet(3, 3, 16, UNetSettings(base=8, multipliers=(1, 2), blocks=1, attention=(8,), groups=4))
    diffusion = Diffusion(linear(10, 0.01, 0.5), Eps(), FixedBeta())
    settings = TrainingSettings(steps=5, batch=5, warmup=0, learning_rate=1e-3, log_every=5)
    training = Training(
        Denoiser(diffusion, network, (3, 16, 16), clip_x0=False), LSimple(), images, settings, seed=3, identity={}
    )
    trainer = Trainer(training, place)
    trainer.run(5)
    return trainer.ema_network().state_dict()


def test_training_on_mapped_images_is_bitwise_that_on_held_ones(photos, tmp_path) -> None:
    held = trained(loaded(photos, 2**30).train.images, tmp_path / "held")
    out_of_file = trained(loaded(photos, 0).train.images, tmp_path / "mapped")
    assert all(torch.equal(held[name], out_of_file[name]) for name in held)


def test_batches_are_the_same_draws_wherever_the_images_lie(photos, monkeypatch) -> None:
    """A GPU is stood in for by a copy on the side: the images stay, and each batch goes through `pin_memory` and `to`."""
    images, copied = loaded(photos, 0).train.images, []
    common = {"size": 5, "flips": True, "seed": 1, "times": Uniform(10), "device": torch.device("cpu")}
    whole = Batches(torch.as_tensor(images.numpy().copy()), **common)
    by_batch = Batches(images, **common)
    monkeypatch.setattr(Batches, "_here", lambda self, chosen: copied.append(chosen.shape) or chosen.clone())
    for step in range(7):
        found, expected = by_batch.at(step), whole.at(step)
        assert all(torch.equal(a, b) for a, b in zip(found[:3], expected[:3], strict=True))
    assert copied[0] == (5, 3, 16, 16)


def test_a_gpu_takes_the_images_up_to_a_share_of_its_free_memory(monkeypatch) -> None:
    class Images:
        nbytes = 800

        def to(self, device):
            return f"on {device}"

    for free, expected in ((8 * 800, "on cuda"), (8 * 800 - 1, None)):
        monkeypatch.setattr(batches.torch.cuda, "mem_get_info", lambda device, free=free: (free, 0))
        images = Images()
        assert batches.placed(images, torch.device("cuda")) == (expected or images)
    assert batches.placed(images, torch.device("cpu")) == "on cpu"


def test_large_images_are_compared_a_few_at_a_time_to_the_same_distances() -> None:
    from ddpm_bench.metrics.products import rows_at_once

    assert rows_at_once(1024, 3 * 32 * 32) == 1024 and rows_at_once(4096, 3 * 256 * 256) == 170
    draw = torch.Generator().manual_seed(0)
    rows, queries = (torch.rand(n, 4096, dtype=torch.float64, generator=draw) for n in (9, 3))
    few, many = nearest(queries, rows.split(2), 4), nearest(queries, [rows], 4)
    assert torch.equal(few.distances, many.distances) and torch.equal(few.rows, many.rows)
