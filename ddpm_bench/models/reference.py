"""The images that a checkpoint is compared with."""

from pathlib import Path

from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import ImageData, load_data
from ddpm_bench.errors import UserError
from ddpm_bench.models.model import Model


def reference_data(model: Model, source: str | None, name: str | None = None, root: Path | None = None) -> ImageData:
    """Both splits of `source`, fitted to the model's size; without `source`, of what the model was trained on.

    UserError when that is not known, when it has changed since, or when images have another shape than the model's.
    """
    if source is None and model.data is None:
        raise UserError(f"It is not known what '{model.name}' was trained on. Say what to compare it with: --data.")
    known = DataSettings(source=source, size=model.shape[-1]) if source else model.data
    data = load_data(known.model_copy(update={"name": name or known.name, "root": root}))
    if data.shape != model.shape:
        raise UserError(
            f"'{model.name}' makes images of (C, H, W) = {model.shape}, and those of '{data.name}' are {data.shape}. "
            "Choose another --data."
        )
    trained_on = model.identity.get("data_sha256")
    if source is None and trained_on not in (None, data.sha256):
        raise UserError(
            f"'{data.name}' is not what '{model.name}' was trained on any more: its pixels have the SHA-256 "
            f"{data.sha256[:12]}…, then {trained_on[:12]}…. Bring the old images back, or compare with these by --data "
            f"{known.source}."
        )
    return data
