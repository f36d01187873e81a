"""TensorBoard event files of a run: `--tensorboard DIR`. The records hold the same numbers."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_bench.errors import UserError
from ddpm_bench.files import make_folder
from ddpm_bench.runtime.observer import Observer, Reading, observed_by, observer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def check_tensorboard(folder: Path | None) -> None:
    """UserError, before anything long, when event files are wanted and the extra that writes them is not installed."""
    if folder is None:
        return
    if find_spec("tensorboard") is None:
        raise UserError(
            f"--tensorboard {folder} needs the package tensorboard, which is not installed: "
            "pip install 'ddpm-bench[tensorboard]', or leave the option out."
        )
    make_folder(folder)


class EventFiles(Observer):
    """Writes one run's curves, and tells everything to `inner`, who watched before."""

    def __init__(self, writer: "SummaryWriter", inner: Observer) -> None:
        self._writer, self._inner = writer, inner
        self.every = inner.every

    def show(self, reading: Reading) -> None:
        self._inner.show(reading)

    def phase(self, name: str) -> None:
        self._inner.phase(name)

    def tick(self, line: Mapping[str, float]) -> None:
        self._inner.tick(line)
        self._add("training", int(line["step"]), {key: line[key] for key in ("loss", "gradient_norm", "images_per_s")})

    def scores(self, step: int, metrics: Mapping[str, float]) -> None:
        self._inner.scores(step, metrics)
        self._add("scores", step, metrics)

    @contextlib.contextmanager
    def following(self, first: Reading) -> Iterator[Callable[[Reading], None]]:
        with self._inner.following(first) as show:
            yield show

    def _add(self, group: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)


@contextlib.contextmanager
def event_files(folder: Path | None) -> Iterator[None]:
    """The block's curves also go into a new event file in `folder`; nothing does where that is None.

    A run that goes on tells all its curves again: the new file purges what an older one in the folder says.
    """
    if folder is None:
        yield
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(make_folder(folder)), purge_step=0) as writer, observed_by(EventFiles(writer, observer())):
        yield
