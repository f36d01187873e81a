"""What a run has scored so far, kept where the same command finds it again after an interruption."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from ddpm_bench.files import write_json
from ddpm_bench.records.record import Checkpoint, Neighbours, Part


class Scored(Part):
    """`of`: all that the scores depend on beside the weights. Pictures and neighbours are of the last checkpoint."""

    of: dict[str, Any]
    checkpoints: tuple[Checkpoint, ...] = ()
    pictures: dict[str, str] = Field(default_factory=dict)
    neighbours: dict[str, Neighbours] = Field(default_factory=dict)

    @property
    def steps(self) -> set[int]:
        return {checkpoint.step for checkpoint in self.checkpoints}

    def having(self, **more: Any) -> "Scored":
        return self.model_copy(update=more)

    def write(self, path: Path) -> None:
        write_json(path, self.as_json())


def read_scored(path: Path, of: dict[str, Any]) -> Scored:
    """What `path` holds of these settings and extractor; another's scores are not taken for these."""
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return Scored.model_validate(held) if held.get("of") == of else Scored(of=of)
