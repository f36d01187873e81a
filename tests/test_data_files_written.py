"""Images written as files or as an archive: read back exactly, and never mixed with others."""

import os
import stat

import numpy as np
import pytest
import torch
from test_data_files import _pixels

from ddpm_bench.data import read_images, write_images
from ddpm_bench.errors import UserError


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["samples", "samples.npz", "SAMPLES.NPZ"])
def test_written_images_are_read_back_exactly(tmp_path, name, channels):
    images = torch.from_numpy(_pixels(12, channels, 8, 6))
    write_images(tmp_path / "new" / name, images)
    assert torch.equal(read_images(tmp_path / "new" / name), images)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name]


def test_written_files_are_numbered_from_zero_and_readable_by_others(tmp_path):
    write_images(tmp_path, torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000.png", "000001.png", "000002.png"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "000000.png").stat().st_mode) == 0o666 & ~umask


def test_an_archive_holds_images_channels_last(tmp_path):
    images = torch.from_numpy(_pixels(2, 3, 8, 6))
    write_images(tmp_path / "a.npz", images)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive.files == ["images"] and archive["images"].shape == (2, 8, 6, 3)


def test_a_folder_with_other_images_is_refused_so_that_two_sets_never_mix(tmp_path):
    write_images(tmp_path, torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    write_images(tmp_path, torch.ones(3, 1, 8, 8, dtype=torch.uint8))  # the same names: replaced
    assert read_images(tmp_path).unique().tolist() == [1]
    with pytest.raises(UserError, match=r"holds other images \('000002\.png'\).*new folder"):
        write_images(tmp_path, torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert read_images(tmp_path).unique().tolist() == [1]


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 1, 8, 8),
        torch.zeros(1, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
        torch.zeros(0, 1, 8, 8, dtype=torch.uint8),
    ],
)
def test_what_is_no_batch_of_uint8_images_is_not_written(tmp_path, images):
    with pytest.raises(UserError, match="must be uint8"):
        write_images(tmp_path / "out", images)
    assert not (tmp_path / "out").exists()
