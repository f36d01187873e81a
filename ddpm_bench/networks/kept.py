"""Networks that models are trained or sampled through, as files: autoencoders and classifiers.

One file is one network: safetensors with its weights, and in the metadata what they are of. So its SHA-256 is of all that it computes.
`ddpm-bench autoencoder train` and `classifier train` write it with a card beside it, for people. What settings name is kept in a folder of
the machine, one for each kind, under that hash or one of what it is trained on, since a path says nothing of what lies there.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import safetensors.torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddpm_bench.config.values import first_fault
from ddpm_bench.errors import UserError
from ddpm_bench.files import replacing, write_text
from ddpm_bench.networks.weights import not_finite, outline, read_tensors

Of = TypeVar("Of", bound=BaseModel)


class NetworkCard(BaseModel):
    """What is known of such a network: the .json beside the file of which `sha256` is the hash. loss: of the last step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    parameters: int
    loss: float
    data_name: str
    data_sha256: str
    train_images: int
    wall_time_s: float
    versions: dict[str, str]


@dataclass(frozen=True)
class FileKind(Generic[Of]):
    """A kind of such files, called `noun`.

    of: what the metadata say, JSON under `key`. fault: why tensors are not the weights of what the metadata say; None where they are.
    It is asked where networks are outlines. remedy: for a file that is none.
    """

    noun: str
    key: str
    of: type[Of]
    fault: Callable[[Of, dict[str, Tensor]], str | None]
    remedy: str

    def content(self, tensors: dict[str, Tensor], of: str) -> bytes:
        """What a file holds. of: its metadata, as JSON."""
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        return safetensors.torch.save(held, {self.key: of})

    def read(self, path: Path, content: bytes, named: Path | None = None) -> tuple[Of, dict[str, Tensor]]:
        """What the weights are of, and the tensors, of a file with this content. UserError, which calls it `named`, for what is none."""
        try:
            with safe_open(path, "pt") as file:
                of = self.of.model_validate_json((file.metadata() or {})[self.key])
            tensors = read_tensors(content)
            with outline():
                wrong = self.fault(of, tensors)
            wrong = wrong or not_finite(tensors)
        except KeyError:
            wrong = "it does not say what it is of"
        except (ValueError, RuntimeError, SafetensorError) as error:
            wrong = first_fault(error) if isinstance(error, ValidationError) else str(error)
        if wrong:
            raise UserError(f"'{named or path}' is no {self.noun} of ddpm-bench: {wrong.rstrip('.')}. {self.remedy}")
        return of, tensors

    def keep(self, content: bytes, folder: Path, named: Path | None = None) -> str:
        """The SHA-256 under which a file with this content lies in `folder` from now on. UserError as of `read`."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = kept_as(folder, sha256)
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_bytes(content)
                self.read(temporary, content, named)
        return sha256


def kept_as(folder: Path, name: str) -> Path:
    """Where the network of that name lies in the folder of its kind, if it is on this machine."""
    return folder.expanduser() / f"{name}.safetensors"


def write_network(path: Path, content: bytes, card: NetworkCard) -> None:
    """The file and, beside it, its card; the file last, so that one that is there is whole."""
    write_text(path.with_suffix(".json"), card.model_dump_json(indent=2) + "\n")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
