"""The stages within the minutes.

Each command runs as a process of its own, so that one that crashes, or a compiler that cannot be interrupted, costs its stage
alone. Where its time is up it is asked to save, as by Ctrl-C; the same call goes on there. What has ended well is not done again.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ddpm_bench.files import make_folder, write_text
from ddpm_bench.runtime.interrupt import stop_requested
from ddpm_bench.runtime.observer import progress, say
from ddpm_bench.runtime.timing import in_words
from ddpm_bench.speed.gpu.stages import STAGES, Plan, Stage, Words

GRACE_S, CLOSING_S = 20.0, 5.0
"""For a command that was asked to save, and for the archive at the end: both are part of the minutes."""
POLL_S = 0.2

Outcome = Literal["done", "done before", "stopped", "failed", "not begun"]
RunCommand = Callable[[Words, Path, float], int | None]
"""run(words, log, seconds): what the process says goes to the log. The exit code; None where it was stopped."""


class StageResult(BaseModel):
    """What a stage came to in this call. why: for an outcome other than done."""

    model_config = ConfigDict(frozen=True)

    name: str
    what: str
    outcome: Outcome
    seconds: float
    why: str = ""


class Finished(BaseModel):
    """The commands that have ended well, in this call and those before, with the seconds that each took."""

    seconds: dict[str, float] = {}

    @classmethod
    def read(cls, path: Path) -> "Finished":
        return cls.model_validate_json(path.read_bytes()) if path.exists() else cls()


def in_a_process(words: Words, log: Path, seconds: float) -> int | None:
    """`python -m WORDS`, asked to save after so many seconds or when a stop was asked for, and ended if it does not."""
    until = time.monotonic() + seconds
    command = [sys.executable, "-m", *words]
    with log.open("ab") as stream, progress(shlex.join(words[:2]), round(seconds), "s") as meter:
        # A group of its own: Ctrl-C reaches it through us alone, once, and no worker outlives it.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, process_group=0)
        try:
            while process.poll() is None and time.monotonic() < until and not stop_requested():
                time.sleep(POLL_S)
                meter.update(round(seconds - (until - time.monotonic())))
            if process.poll() is not None:
                return process.returncode
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            return 0 if process.returncode == 0 else None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Session:
    """One call of `ddpm-bench gpu`: `results` of its stages, in order, as they end."""

    def __init__(self, plan: Plan, run: RunCommand = in_a_process) -> None:
        self.plan, self.run = plan, run
        self.usable_s = 60 * plan.minutes - GRACE_S - CLOSING_S
        self.until = time.monotonic() + self.usable_s
        self.results: list[StageResult] = []
        self._path = plan.out / "finished.json"
        self._finished = Finished.read(self._path)

    def stages(self, names: Sequence[str]) -> Iterator[StageResult]:
        """One after the other. Where a stop was asked for, what runs has saved, and the others are not begun."""
        stages = [STAGES[name] for name in STAGES if name in names]
        for number, stage in enumerate(stages):
            later = sum(each.share for each in stages[number + 1 :] if not self._is_finished(each))
            result = self._stage(stage, self.until - later * self.usable_s)
            self.results.append(result)
            why = f": {result.why}" if result.why else ""
            say(f"{stage.name}: {result.outcome} after {in_words(result.seconds)}{why}")
            yield result

    def _is_finished(self, stage: Stage) -> bool:
        return all(shlex.join(words) in self._finished.seconds for words in stage.commands(self.plan))

    def _stage(self, stage: Stage, until: float) -> StageResult:
        began = time.monotonic()

        def result(outcome: Outcome, why: str = "") -> StageResult:
            return StageResult(
                name=stage.name, what=stage.what, outcome=outcome, seconds=time.monotonic() - began, why=why
            )

        if self._is_finished(stage):
            return result("done before")
        if stop_requested():
            return result("not begun", "it was asked to stop")
        if stage.needs and not any(stage.needs(self.plan).glob("step-*")):
            return result("not begun", f"there is no checkpoint in '{stage.needs(self.plan)}' yet")
        if (left := until - began) < stage.least_s:
            return result(
                "not begun",
                f"for want of time: {in_words(max(0, left))} were left of the {stage.least_s:.0f} s it takes",
            )
        failed = ""
        for words in stage.commands(self.plan):
            key = shlex.join(words)
            if key in self._finished.seconds:
                continue
            if until <= time.monotonic() or stop_requested():
                return result("stopped", f"before `{key}`")
            log = make_folder(self.plan.out / "logs") / f"{stage.name}.log"
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"$ python -m {key}\n")
            start = time.monotonic()
            code = self.run(words, log, until - start)
            if code is None:
                return result("stopped", f"in `{key}`")
            if code:
                failed = f"`{key}` ended with exit code {code}; see '{log}'"
                say(f"{stage.name}: {failed}")
                continue
            self._finished.seconds[key] = time.monotonic() - start
            write_text(self._path, self._finished.model_dump_json(indent=2))
        return result("failed", failed) if failed else result("done")
