"""How samples are drawn: the options of `sample` and `evaluate`, each a field, and what they ask for. Imports no torch."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

import typer

from ddpm_bench.cli.options import Clip, Spacing, plain_path
from ddpm_bench.errors import UserError
from ddpm_bench.text import brief


@dataclass(frozen=True)
class SamplingOptions:
    """A field is called as its option and its setting are, but for clip_x0, `clip` here; None where it was not given."""

    spacing: Spacing = None
    sampler: Annotated[
        str | None,
        typer.Option(
            help="How a step is taken: ancestral, ddim, sigma-hat, ancestral-sde, reverse-diffusion, probability-flow, langevin "
            "or annealed-langevin; x_0 is clipped as its source does unless --clip or --no-clip is given [default: the checkpoint's own]."
        ),
    ] = None
    eta: Annotated[
        float | None, typer.Option(help="Noise of ddim, 0 to 1: 0 for none, 1 for DDPM's beta-tilde [default: 0].")
    ] = None
    corrector_steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Langevin steps before each step of the four from ancestral-sde to langevin [default: 0; langevin: 1].",
        ),
    ] = None
    snr: Annotated[
        float | None, typer.Option(help="Ratio of signal to noise of the Langevin steps [default: 0.16].")
    ] = None
    corrector_norm: Annotated[
        Literal["image", "batch"] | None,
        typer.Option(
            help="The norms behind that ratio: of each image, or the mean of the batch, as released [default: image]."
        ),
    ] = None
    level_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps a level of annealed-langevin [default: 100].")
    ] = None
    step_size: Annotated[
        float | None,
        typer.Option(
            help="Step of annealed-langevin at the least noise, half the paper's alpha [default: 2e-5, in units of x_0 squared]."
        ),
    ] = None
    final_denoising: Annotated[
        bool | None,
        typer.Option(
            "--final-denoising/--no-final-denoising",
            help="annealed-langevin ends with x + sigma^2 s(x), as NCSNv2 does [default: no].",
        ),
    ] = None
    start: Annotated[
        Literal["uniform", "normal"] | None,
        typer.Option(help="annealed-langevin starts from uniform noise, or from x_T as others do [default: uniform]."),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="Which class each sample is of, by a model that is told classes: balanced (sample i is of class i modulo their number), "
            "or the number of one [default: the checkpoint's own, balanced].",
        ),
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Scale s of classifier-free guidance, which is 1 + w for the w of Ho and Salimans: 1 is none, 0 the unconditional model; "
            "two network calls a prediction [default: the checkpoint's own, 1].",
        ),
    ] = None
    guidance_channels: Annotated[
        int | None,
        typer.Option(
            min=1, help="Guide so many first channels alone, as the release of DiT does three of four [default: all]."
        ),
    ] = None
    classifier: Annotated[
        Path | None,
        typer.Option(
            "--classifier",
            callback=plain_path,
            help="Samples are guided by this file of `ddpm-bench classifier train` [default: the checkpoint's own, none].",
        ),
    ] = None
    classifier_scale: Annotated[
        float | None,
        typer.Option(
            min=0, help="Scale of the classifier's gradient: 0 is no guidance [default: the checkpoint's own, 1]."
        ),
    ] = None
    gradient_at: Annotated[
        Literal["x_t", "mean"] | None,
        typer.Option(
            help="Where the classifier's gradient is taken: at x_t, as released, or at the mean, as derived "
            "[default: the checkpoint's own, x_t]."
        ),
    ] = None
    augmentation: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Level s of the noise in the small images that the last model of a cascade enlarges, of those it was trained with "
            "[default: the checkpoint's own, 0: none].",
        ),
    ] = None
    clip: Clip = None

    @property
    def given(self) -> dict[str, bool]:
        """The options that were given, as they are written on the command line."""
        return {_written(name): True for name, value in vars(self).items() if value is not None}

    @property
    def asked(self) -> dict[str, object]:
        """What is asked for by the names of the settings, the classifier still as its path."""
        values = {"clip_x0" if name == "clip" else name: value for name, value in vars(self).items()}
        return values | {"labels": _sample_class(self.labels)}


UNASKED = SamplingOptions()
"""As the checkpoint is sampled."""
KINDS = get_type_hints(SamplingOptions, include_extras=True)
"""By field: its type, with what typer is told of it."""


def with_sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command, whose parameter `sampling: SamplingOptions` becomes its fields: typer reads options from a signature."""

    def called(**given: object) -> None:  # typer calls by name
        others = {name: value for name, value in given.items() if name not in KINDS}
        command(**others, sampling=SamplingOptions(**{name: given[name] for name in KINDS}))  # type: ignore[arg-type]

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        parameters += _as_parameters() if parameter.name == "sampling" else [parameter]
    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _as_parameters() -> list[inspect.Parameter]:
    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [inspect.Parameter(name, by_name, default=None, annotation=kind) for name, kind in KINDS.items()]


def _written(name: str) -> str:
    """The option of a field: as typer is told, or else by its name."""
    (told,) = KINDS[name].__metadata__
    return told.default if isinstance(told.default, str) else f"--{name.replace('_', '-')}"


def _sample_class(text: str | None) -> str | int | None:
    """`balanced`, or `3` -> 3; UserError for anything else."""
    from ddpm_bench.config.sampling import BALANCED

    if text is None or text == BALANCED:
        return text
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise UserError(f"--labels {brief(text)} must be {BALANCED} or the number of a class, such as 3.")
    return int(text)
