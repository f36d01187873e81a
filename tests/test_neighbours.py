"""Nearest training images against brute force, with copies among them, and their pictures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ddpm_bench.errors import Interrupted
from ddpm_bench.measurement.pictures import draw_neighbours
from ddpm_bench.metrics import neighbours
from ddpm_bench.metrics.extractor import Extractor
from ddpm_bench.metrics.neighbours import Neighbourhood, find_neighbours, nearest
from ddpm_bench.records.record import ExtractorInfo
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.runtime import Runtime


class Mirror(nn.Module):
    """Features that forget left and right: the pixels plus their mirror image."""

    def forward(self, images):
        x = images.float() / 255
        features = (x + x.flip(-1)).flatten(1)
        return features, features[:, :3]


INFO = ExtractorInfo(name="mirror", sha256="a" * 64, verified=True, labels=("FD (m)", "IS (m)"), feature_dim=64)
EXTRACTOR = Extractor(INFO, Mirror(), channels=1, sizes=None, batch=7, image_bytes=2**20)


def images(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


TRAIN, TEST = images(50, 0), images(3, 1)
SAMPLES = torch.stack([TRAIN[41], TRAIN[17].flip(-1), images(1, 2)[0]])


@pytest.mark.parametrize("block", [1, 6, 100])
def test_the_nearest_rows_are_those_of_brute_force_however_the_reference_is_cut(block):
    rng = np.random.default_rng(0)
    queries, reference = torch.from_numpy(rng.normal(size=(5, 9))), torch.from_numpy(rng.normal(size=(23, 9)))
    found = nearest(queries, reference.split(block), 4)
    distances = ((queries[:, None] - reference[None]) ** 2).mean(2).sqrt()
    expected, rows = distances.sort(1)
    assert torch.equal(found.rows, rows[:, :4])
    torch.testing.assert_close(found.distances, expected[:, :4], rtol=1e-12, atol=0)


def test_a_reference_of_few_rows_gives_them_all_and_ties_go_to_the_first():
    found = nearest(torch.zeros(1, 2), [torch.tensor([[3.0, 3.0]]), torch.tensor([[1.0, 1.0], [-1.0, 1.0]])], 7)
    assert found.rows.tolist() == [[1, 2, 0]] and found.distances.tolist() == [pytest.approx([1, 1, 3])]


def found_with(cache=None) -> dict[str, Neighbourhood]:
    return find_neighbours(SAMPLES, TEST, TRAIN, EXTRACTOR, Runtime(cache=cache))


def test_copies_are_at_distance_zero_and_test_images_are_the_scale(tmp_path):
    found, plain = found_with(tmp_path), found_with()
    assert len(list((tmp_path / "features").iterdir())) == 1  # of the training images alone
    for space, again in found.items():
        assert (again.samples, again.test) == (plain[space].samples, plain[space].test)
        assert torch.equal(again.rows, plain[space].rows)
    pixel, feature = found["pixel"], found["feature"]
    assert pixel.samples[0] == 0 and pixel.samples[1] > 0.2
    assert feature.samples[:2] == (0, 0) and feature.samples[2] > 0.1  # a mirrored copy is one to these features
    assert len(pixel.test) == len(feature.test) == len(TEST)
    away = (TEST.flatten(1)[:, None].double() - TRAIN.flatten(1)[None].double()) / 255
    assert pixel.test == pytest.approx(away.square().mean(2).sqrt().amin(1).tolist(), rel=1e-12)


def test_a_picture_shows_each_sample_beside_its_nearest(tmp_path):
    drawn = {}
    for space, found in found_with().items():
        draw_neighbours(tmp_path / f"{space}.png", SAMPLES, TRAIN, found, space)
        with Image.open(tmp_path / f"{space}.png") as picture:
            assert space in json.loads(picture.text["Description"])["shown"]
            drawn[space] = np.array(picture)
    factor, gap, columns = 6, 1, 8
    height, width = drawn["pixel"].shape
    left, top = width - factor * (columns * 9 + gap), height - factor * (3 * 9 + gap)

    def tile(space, row, column):
        y, x = top + factor * (gap + row * 9), left + factor * (gap + column * 9)
        return torch.from_numpy(drawn[space][y : y + 48 : factor, x : x + 48 : factor].copy())

    assert list(drawn) == ["pixel", "feature"]
    for space in drawn:
        for row in range(3):
            assert torch.equal(tile(space, row, 0), SAMPLES[row, 0])
        assert torch.equal(tile(space, 0, 1), TRAIN[41, 0])
    assert torch.equal(tile("feature", 1, 1), TRAIN[17, 0])
    assert not torch.equal(tile("pixel", 1, 1), TRAIN[17, 0])


def test_the_training_set_is_compared_in_blocks_and_can_be_interrupted(monkeypatch):
    sizes, cdist = [], torch.cdist
    monkeypatch.setattr(neighbours, "BLOCK", 8)
    monkeypatch.setattr(torch, "cdist", lambda a, b, **how: sizes.append(len(b)) or cdist(a, b, **how))
    found_with()
    assert max(sizes) == 8 and sum(sizes) == 2 * len(TRAIN)

    def ask(a, b, **how):
        stop.requested = True
        return cdist(a, b, **how)

    monkeypatch.setattr(torch, "cdist", ask)
    with Stop() as stop, pytest.raises(Interrupted):
        list(nearest(torch.zeros(1, 2), neighbours._blocks(torch.zeros(9, 2)), 1))
