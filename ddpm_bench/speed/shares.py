"""Where the time of a cell goes, seen in the very code that trains, samples, bounds and scores it.

A part begins where the one before ends, so the parts of a phase add up to all of its time. On a GPU every mark waits
for the device, and nothing is replayed, since a replay passes no mark: that makes the whole slower, and each part what it
costs there.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_bench.diffusion.samplers import Chain
from ddpm_bench.experiment.cost import bound_calls
from ddpm_bench.likelihood import estimate_bits_per_dim
from ddpm_bench.measurement.samples import draw_samples
from ddpm_bench.models.model import Model
from ddpm_bench.runtime.recorded import launched_one_by_one
from ddpm_bench.runtime.timing import wait
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.peers import OURS
from ddpm_bench.speed.result import COUNTED, Phase
from ddpm_bench.speed.work import trainer_of
from ddpm_bench.training.trainer import Trainer

NETWORK, LOSS, OPTIMIZER = COUNTED
STEPS, EVALS = 5, 10
"""Training steps and steps of a chain that are looked at; network calls an image where a preset's bound is exact."""


class Marks:
    """A clock that always runs for one part."""

    def __init__(self, device: torch.device, first: str) -> None:
        self.device, self.part = device, first
        self.seconds: dict[str, float] = defaultdict(float)
        self._since = time.perf_counter()

    def switch(self, part: str) -> None:
        """What comes from now on is `part`'s."""
        wait(self.device)
        now = time.perf_counter()
        self.seconds[self.part] += now - self._since
        self.part, self._since = part, now

    def around(self, function: Callable[..., Any], inside: str, after: str) -> Callable[..., Any]:
        """The function, with its time for `inside` and what follows it for `after`."""

        def marked(*arguments: Any) -> Any:
            self.switch(inside)
            result = function(*arguments)
            self.switch(after)
            return result

        return marked

    def method(self, owner: object, name: str, inside: str, after: str) -> None:
        """From now on the time of this method of the object is for `inside`, and what follows it for `after`."""
        setattr(owner, name, self.around(getattr(owner, name), inside, after))

    def network(self, network: nn.Module, after: str) -> None:
        """From now on the time of the network's calls is its own, and what follows them for `after`."""
        network.register_forward_pre_hook(lambda *_: self.switch(NETWORK))
        network.register_forward_hook(lambda *_: self.switch(after))

    def parts(self) -> dict[str, float]:
        """Seconds by part up to now."""
        self.switch(self.part)
        return dict(self.seconds)


def phases(case: Case) -> list[Phase]:
    """Training, sampling and bound of the preset; scoring too where its extractor comes with the package."""
    with launched_one_by_one(), tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(case, OURS.network(case), Path(folder), case.runtime)
        found = [training(case, trainer), sampling(case, trainer.ema_network(), Path(folder))]
        found += [bound(case, trainer.ema_network())] if case.settings.scoring.bound_images else []
    return [*found, scoring(case)] if case.settings.scoring.extractor == "embedded" else found


def training(case: Case, trainer: Trainer) -> Phase:
    """`Trainer.run`. The snapshot at its end counts as often as the preset writes one."""
    trainer.run(1)
    marks = Marks(case.device, "other")
    marks.network(trainer.network, LOSS)
    marks.method(trainer.batches, "at", "data", LOSS)  # the objective comes next
    trainer.optimizer.register_step_pre_hook(lambda *_: marks.switch(OPTIMIZER))
    marks.method(trainer.ema, "update", OPTIMIZER, "other")
    marks.method(trainer, "_save", "checkpoints", "other")
    trainer.run(1 + STEPS)
    parts, settings = marks.parts(), case.settings.training
    parts["checkpoints"] *= min(1.0, STEPS / settings.checkpoint_every)
    images = settings.steps * settings.batch
    return Phase(name="training", parts=parts, cell_seconds=sum(parts.values()) * images / (STEPS * case.batch))


def sampling(case: Case, network: nn.Module, folder: Path) -> Phase:
    """`draw_samples`, with a chain of few steps."""
    steps, settings = min(STEPS, case.diffusion.schedule.T), case.settings.sampling
    _warm_up(case, network)
    marks = Marks(case.device, "sampling arithmetic")
    marks.network(network, "sampling arithmetic")
    few = settings.model_copy(update={"steps": steps, "samples": case.eval_batch})
    draw_samples(_model(case, network), few, 0, case.runtime, folder)
    parts = marks.parts()
    calls = settings.samples * (settings.steps or case.diffusion.schedule.T)
    return Phase(name="sampling", parts=parts, cell_seconds=sum(parts.values()) * calls / (steps * case.eval_batch))


def bound(case: Case, network: nn.Module) -> Phase:
    """`estimate_bits_per_dim`; an exact bound, with fewer dear decoder terms, is taken to cost as much a call."""
    scoring = case.settings.scoring
    evals = scoring.bound_evals or EVALS
    _warm_up(case, network)
    marks = Marks(case.device, "bound arithmetic")
    marks.network(network, "bound arithmetic")
    chain = Chain(case.denoiser(network))
    estimate_bits_per_dim(chain, case.images(case.eval_batch), evals=evals, seed=0, runtime=case.runtime)
    parts, calls = marks.parts(), bound_calls(scoring, case.diffusion.schedule.T)
    return Phase(name="bound", parts=parts, cell_seconds=sum(parts.values()) * calls / (evals * case.eval_batch))


def scoring(case: Case) -> Phase:
    """`scores` of as many random images as the preset samples, the training set's features being there from before."""
    from ddpm_bench.data import load_data
    from ddpm_bench.metrics.extractors import load_extractor
    from ddpm_bench.metrics.fidelity import scores

    settings = case.settings
    reference = load_data(settings.data).train.images
    with tempfile.TemporaryDirectory() as cache:
        extractor = load_extractor(settings.scoring.extractor, size=settings.data.size, cache=Path(cache))
        how = settings.scoring.model_copy(update={"bootstrap": 0, "test_reference": False})
        runtime = replace(case.runtime, cache=Path(cache))

        def scored(images: Tensor) -> None:
            scores(images, reference, extractor, how, runtime)

        images = case.images(settings.sampling.samples)
        scored(images)
        marks = Marks(case.device, "metrics")
        marks.network(extractor.network, "metrics")
        scored(images)
    parts = marks.parts()
    return Phase(name="scoring", parts=parts, cell_seconds=sum(parts.values()))


def _model(case: Case, network: nn.Module) -> Model:
    """The network as a model of no checkpoint."""
    settings = case.settings
    return Model(
        "speed", network, settings.network, settings.diffusion, case.diffusion, case.shape, "unknown", "", None,
        settings.sampling, {},
    )  # fmt: skip


@torch.inference_mode()
def _warm_up(case: Case, network: nn.Module) -> None:
    """Time that only the first call of a network needs is no part of any phase."""
    x = torch.randn(case.eval_batch, *case.shape, device=case.device)
    network(x, torch.zeros(case.eval_batch, dtype=torch.int64, device=case.device))
