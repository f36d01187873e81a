"""Features of reference images, kept between calls under a hash of the pixels and of the extractor's weights.

torch-fidelity reads and writes the entries: one .pt file a layer, `<name of the images>-<name of the
extractor>-<what>.pt`. Both names are hashes here, so that a new checkpoint can never get old features. It unpickles
what it finds; so what lies there is looked at first.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch.serialization import get_unsafe_globals_in_checkpoint

from ddpm_bench.files import make_folder
from ddpm_bench.metrics.extractor import Extractor, MeasuredImages
from ddpm_bench.runtime.observer import say

# Arrays of NumPy, in which torch-fidelity keeps means and covariances; everything else in an entry is tensors.
ARRAYS = {"numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype", "numpy.dtypes.Float64DType"}


@contextlib.contextmanager
def cache_folder(cache: Path | None) -> Iterator[Path]:
    """Where features may lie: in `cache`, or without one in a passing folder."""
    if cache is not None:
        yield make_folder(cache / "features")
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def reference_name(folder: Path, images: MeasuredImages, extractor: Extractor) -> str | None:
    """The name under which the features of `images` are, or shall be, kept in `folder`; None where there is no room.

    A damaged or foreign entry is thrown away, to be made again.
    """
    name = images.sha256()
    entries = list(folder.glob(f"{name}-*{extractor.info.sha256}-*.pt"))
    for path in entries:
        if not _holds_arrays_only(path):
            say(f"Making '{path}' again: it was damaged.")
            path.unlink(missing_ok=True)
    return name if entries or _has_room(folder, images, extractor) else None


@contextlib.contextmanager
def kept_meanwhile(folder: Path, images: MeasuredImages, extractor: Extractor) -> Iterator[str | None]:
    """A name, also of their content, for features that several calls share and that then go; None without room."""
    if not _has_room(folder, images, extractor):
        yield None
        return
    name = f"samples-{images.sha256()}"
    try:
        yield name
    finally:
        for path in folder.glob(f"{name}-*"):
            path.unlink(missing_ok=True)


def _has_room(folder: Path, images: MeasuredImages, extractor: Extractor) -> bool:
    most = 8 * len(images) * 2 * extractor.info.feature_dim  # bytes of float64 features, and no more of logits
    if shutil.disk_usage(folder).free >= 2 * most:
        return True
    say(f"Too little room in '{folder}' to keep the features of {len(images):,} images; going on without.")
    return False


def _holds_arrays_only(path: Path) -> bool:
    """Can the file be read without running anything that it holds? Only the list of what it refers to is read."""
    try:
        return set(get_unsafe_globals_in_checkpoint(path)) <= ARRAYS
    except (RuntimeError, ValueError, EOFError, OSError):
        return False
