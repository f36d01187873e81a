"""TensorBoard event files of a run: `--tensorboard DIR`. The records hold the same numbers."""

import contextlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from ddpm_bench.errors import UserError
from ddpm_bench.files import make_folder


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


class Events:
    """One run's curves. Without a writer nothing is written."""

    def __init__(self, writer=None) -> None:
        self._writer = writer

    def tick(self, line: Mapping[str, float]) -> None:
        """One line of the training log."""
        self._add("training", int(line["step"]), {key: line[key] for key in ("loss", "gradient_norm", "images_per_s")})

    def scores(self, step: int, metrics: Mapping[str, float]) -> None:
        """Scores of the weights after `step` steps, by their key in `metrics/registry.py`."""
        self._add("scores", step, metrics)

    def _add(self, group: str, step: int, values: Mapping[str, float]) -> None:
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)


@contextlib.contextmanager
def event_log(folder: Path | None) -> Iterator[Events]:
    """Curves into a new event file in `folder`; nothing where that is None.

    A run that goes on tells all its curves again: the new file purges what an older one in the folder says.
    """
    if folder is None:
        yield Events()
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(make_folder(folder)), purge_step=0) as writer:
        yield Events(writer)
