"""The training loop: Algorithm 1 of Ho, Jain, Abbeel 2020, with the paper's optimizer and average (appendix B).

A run that stopped goes on, and on the CPU ends with bitwise the weights and the log of one that did not: see `batches.py`.
The loop never waits for the device: losses, norms and the check for divergence stay there and are read once a tick
(`log_every` steps), before a snapshot and at the end.

Several ranks train in step, each on its slice of every batch: gradients are means over the ranks, and what is logged or
learned of t is of the whole batch, so that the curve is that of one device up to rounding. Rank 0 alone writes, and what it
reads the others get with the order to train: snapshots know nothing of ranks.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import TrainingSettings
from ddpm_bench.data.codec import PIXELS, Codec
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import Objective
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.files import make_folder, sha256_file, write_text
from ddpm_bench.networks.condition import Condition
from ddpm_bench.records.provenance import git_commit
from ddpm_bench.records.record import Divergence, LogPoint
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.interrupt import stop_requested
from ddpm_bench.runtime.observer import observer, progress, say
from ddpm_bench.runtime.recorded import Recorded
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training import snapshots
from ddpm_bench.training.batches import Batches, Labels, Small, borrowed_globals
from ddpm_bench.training.divergence import Watch
from ddpm_bench.training.ema import Ema, initial_share
from ddpm_bench.training.tensors import RunTensors


@dataclass(frozen=True)
class Training:
    """What is trained, on what, and how; with the step all that the weights depend on.

    denoiser: its network is a module, trained in place from the weights that it has; x_0 is not clipped. objective: the
    loss, and how t is drawn. images: uint8 (N, C, H, W), of which `codec` makes x_0. seed: with `settings`, decides the
    run. identity: JSON values that the run depends on; a snapshot of another one is refused. sampling: what snapshots say
    of how their model is sampled; training does not depend on it. labels, small: what the network is told of the images.
    """

    denoiser: Denoiser
    objective: Objective
    images: Tensor
    settings: TrainingSettings
    seed: int
    identity: Mapping[str, Any]
    codec: Codec = PIXELS
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    labels: Labels | None = None
    small: Small | None = None


class Trainer:
    """One run: its network, optimizer, average and log, at `step` finished steps.

    folder: of snapshots and `log.jsonl`, a line a tick: step, loss, gradient_norm (means over the tick), seconds (of
    training so far) and images_per_s. The observer hears each line; on `resume`, those from before.
    """

    def __init__(self, training: Training, folder: Path, runtime: Runtime | None = None) -> None:
        runtime = runtime or Runtime()
        if runtime.keep < 1:
            raise UserError(f"keep = {runtime.keep} would leave no snapshot to go on from; keep at least 1.")
        self.training, self.folder, self.runtime = training, folder, runtime
        settings, denoiser = training.settings, training.denoiser
        check_batch(settings.batch)
        if not isinstance(denoiser.network, nn.Module):
            raise TypeError("a plain function has no weights to train")
        self.network = runtime.place(denoiser.network)
        self.times = training.objective.times(denoiser.T)
        self.batches = Batches(
            training.images,
            settings.batch,
            flips=settings.flips,
            seed=training.seed,
            times=self.times,
            codec=training.codec,
            device=runtime.device,
            labels=training.labels,
            small=training.small,
        )
        fused = runtime.device.type in ("cpu", "cuda", "mps")
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate, fused=fused)
        self.ema = Ema(self.network, settings.ema_decay, settings.ema_ramp)
        self._tensors = RunTensors(self.network, self.ema, self.optimizer, self.times, runtime.device)
        self._denoiser = denoiser  # with the network as it is called in training
        # Several ranks share gradients as they come, which is no work of one GPU alone.
        self._gradients = Recorded(self._backward) if ranks.size() == 1 else self._backward
        self.step = 0
        self.seconds = 0.0
        self.commits: list[str] = []  # of the source trees that trained, in order; see `git_commit`
        self.weights: dict[str, str] = {}  # SHA-256 of the averaged weights by the step of their snapshot
        self.divergence: Divergence | None = None
        self._watch = Watch(runtime.device)
        self._means = torch.zeros(2, device=runtime.device)  # of loss and gradient norm; complete at the next tick
        self._lines: list[dict[str, float]] = []  # of log.jsonl
        self._tick_seconds = 0.0  # at the last tick

    @property
    def log(self) -> list[LogPoint]:
        """One point a tick, means over its steps."""
        return [LogPoint(step=int(x["step"]), loss=x["loss"], gradient_norm=x["gradient_norm"]) for x in self._lines]

    # ---- one step ---------------------------------------------------------------------------------------------------------

    def train_step(self) -> None:
        """Algorithm 1, lines 2 to 5."""
        settings, step = self.training.settings, self.step
        batch = self.batches.at(step)
        losses, loss, gradients = self._gradients(*batch.own())
        for parameter, gradient in zip(self.network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.times.learn(batch.t, ranks.gathered(losses))
        loss = ranks.mean(loss)
        norm = clip_grad_norm_(self.network.parameters(), settings.longest_gradient)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * warmup(step, settings.warmup)
        self.optimizer.step()
        self.ema.update(step)

        self.step += 1
        self._watch.look(self.step, loss, norm)
        self._means += torch.stack((loss, norm)).float() / settings.log_every

    def _backward(
        self, x0: Tensor, t: Tensor, eps: Tensor, weight: Tensor | None, condition: Condition | None
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """The losses of a batch, (B,), their weighted mean, and its gradient by each parameter; see `Batch`."""
        losses = self.training.objective(self._denoiser.given(condition), x0, t, eps)
        loss = (losses if weight is None else losses * weight).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return losses.detach(), loss.detach(), [parameter.grad for parameter in self.network.parameters()]

    # ---- the loop ---------------------------------------------------------------------------------------------------------

    def run(self, until: int) -> Divergence | None:
        """Train to `until` finished steps, save, and return what diverged, if anything did.

        Raises Interrupted, after saving, when a stop was asked for, UserError when the folder has snapshots that `resume`
        was not asked to continue, and OSError when the disk is full: the last snapshot is still there.
        """
        if self.divergence or self.step >= until:
            return self.divergence
        if self.step == 0:
            self._begin()
        self.commits = list(dict.fromkeys([*self.commits, git_commit() or "an installed package"]))
        ranks.in_step(Trainer._train, self, until)
        return self.divergence

    def _train(self, until: int) -> None:
        """The loop of every rank; see `run`."""
        settings, agreed = self.training.settings, ranks.Agreement()
        self.runtime.place(self.network).train()
        with (
            borrowed_globals(self.runtime.device), self._called_in_parallel(),
            progress("training", until, "images", self.step) as meter,
        ):  # fmt: skip
            began, seconds = time.monotonic(), self.seconds
            while self.step < until:
                self.train_step()
                self.seconds = seconds + time.monotonic() - began
                stopping = agreed(stop_requested())  # once a step: a signal after this line waits for the next
                due = self.step % settings.checkpoint_every == 0 or self.step == until or stopping
                if self.step % settings.log_every == 0:
                    self._tick()
                if due and not self.divergence:
                    self._save()
                if self.divergence:
                    return
                meter.update(self.step, self._lines[-1]["loss"] if self._lines else None, settings.batch)
                if stopping and self.step < until:
                    raise Interrupted

    @contextlib.contextmanager
    def _called_in_parallel(self) -> Iterator[None]:
        """The network is called as one of several ranks does, where there are several."""
        with ranks.data_parallel(self.network) as network:
            self._denoiser = replace(self.training.denoiser, network=network)
            try:
                yield
            finally:
                self._denoiser = self.training.denoiser

    def ema_network(self) -> nn.Module:
        """A copy of the network with averaged weights, in evaluation mode. UserError once the run has diverged."""
        if self.divergence:
            raise UserError(
                f"Training diverged at step {self.divergence.step} ({self.divergence.reason}): no weights to use."
            )
        return self.ema.network()

    def _begin(self) -> None:
        if snapshots.snapshots(self.folder) or (self.folder / snapshots.DIVERGED).exists():
            raise UserError(
                f"'{self.folder}' has snapshots already. Call resume() to go on from them, or use another folder."
            )
        (self.folder / "log.jsonl").unlink(missing_ok=True)  # of a run that ended before its first snapshot
        settings = self.training.settings
        steps, decay = settings.steps, settings.ema_decay
        share = initial_share(steps, decay, settings.ema_ramp)
        if share > 0.1:
            say(f"After {steps} steps the averaged weights will still be {share:.0%} random initial ones "
                f"(ema_decay {decay}); for a short run set training.ema_ramp=true.")  # fmt: skip

    def _tick(self) -> None:
        """Read the device: log the means since the last tick, or find that the run has diverged."""
        if self._diverged():
            return
        loss, norm = self._means.tolist()
        self._means.zero_()
        speed = (
            self.training.settings.batch
            * self.training.settings.log_every
            / max(self.seconds - self._tick_seconds, 1e-9)
        )
        line = {"step": self.step, "loss": loss, "gradient_norm": norm, "seconds": self.seconds, "images_per_s": speed}
        self._lines.append(line)
        self._tick_seconds = self.seconds
        if ranks.rank():
            return
        with (make_folder(self.folder) / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        observer().tick(line)

    def _diverged(self) -> bool:
        """Has it? Then record it, so that the same run again knows without training."""
        self.divergence = self._watch.read()
        if self.divergence:
            self.step = self.divergence.step
            if ranks.rank() == 0:
                snapshots.save_divergence(self.folder, self._state() | {"divergence": self.divergence.model_dump()})
        return self.divergence is not None

    # ---- snapshots --------------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        tick = {"means": self._means.tolist(), "seconds": self._tick_seconds} if not self.divergence else None
        return {
            "seed": self.training.seed,
            "identity": self.training.identity,
            "precision": self.runtime.arithmetic["precision"],
            "sampling": self.training.sampling.model_dump(mode="json"),
            "weights": self.weights,
            "commits": self.commits,
            "seconds": self.seconds,
            "tick": tick,
            "log": self._lines,
        }

    def _save(self) -> None:
        """Write a snapshot of this step, unless the weights turn out to have diverged."""
        if self._diverged() or ranks.rank():
            return
        saved = snapshots.save(self.folder, self.step, self._tensors.held(), self._state(), self.runtime.keep)
        self.weights = snapshots.load_state(saved)["weights"]

    def resume(self) -> int:
        """Go on from the newest whole snapshot in the folder; returns its step, 0 if there is none.

        A damaged one is said and gets another name, and the one before is taken. A run that diverged is taken up as such.
        UserError when a snapshot is of another identity or seed, or of another network; then nothing was loaded.
        """
        diverged = self.folder / snapshots.DIVERGED
        for path in [*([diverged] if diverged.exists() else []), *reversed(snapshots.snapshots(self.folder))]:
            try:
                self._take_up(path)
                return self.step
            except snapshots.Damaged as error:
                aside = snapshots.rename_damaged(path)
                say(
                    f"{error.fault}; it is called '{aside.name}' now. What was before it counts, or training starts again."
                )
        return 0

    def _take_up(self, path: Path) -> None:
        """Go on from a snapshot, or know that the run has diverged."""
        state = snapshots.load_state(path)
        was, now = ({"seed": seed, **identity} for seed, identity in
                    ((state["seed"], state["identity"]), (self.training.seed, self.training.identity)))  # fmt: skip
        snapshots.check_identity(path, was, now)
        snapshots.check_precision(path, state, str(self.runtime.arithmetic["precision"]))
        if path.name == snapshots.DIVERGED:
            self.divergence = Divergence(**state["divergence"])
            self.step = self.divergence.step
        else:
            self._tensors.load(path, state)
            snapshots.set_sampling(path, self.training.sampling.model_dump(mode="json"))
            self.step = state["step"]
            self.weights = state.get("weights") or {str(self.step): sha256_file(path / "ema.safetensors")}
            self._means = torch.tensor(state["tick"]["means"], device=self.runtime.device)
            self._tick_seconds = state["tick"]["seconds"]
        self.seconds, self._lines = state["seconds"], state["log"]
        self.commits = state.get("commits", ["not recorded"])
        # Lines beyond the snapshot will be written again.
        write_text(self.folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in self._lines))
        for line in self._lines:
            observer().tick(line)


def check_batch(batch: int) -> None:
    """UserError where a batch cannot be shared by the ranks."""
    if batch % (count := ranks.size()):
        fitting = ", ".join(str(number) for number in range(1, min(batch, 64) + 1) if batch % number == 0)
        raise UserError(
            f"training.batch = {batch} cannot be shared evenly by {count} ranks. Use a number of ranks that divides it ({fitting}), or "
            f"--set training.batch={-(-batch // count) * count}, which is another experiment."
        )


def warmup(step: int, steps: int) -> float:
    """The factor on the learning rate at `step`, counted from 0: linear to 1 over `steps`.

    The release takes step / steps, so that its first step changes nothing; (step + 1) / steps wastes none.
    """
    return min(1.0, (step + 1) / steps) if steps else 1.0
