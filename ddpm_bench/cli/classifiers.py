"""`ddpm-bench classifier ...`: classifiers of noised images, by which samples are guided."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpm_bench.cli.options import CKPT_HELP, Data, DataName, DataRoot, Device, Json, Resizing, Seed, plain_path, refuse
from ddpm_bench.cli.show import print_json
from ddpm_bench.config.limits import LEAST_SIDE, MOST_SIDE, MOST_T
from ddpm_bench.errors import UserError, near_miss

if TYPE_CHECKING:
    from ddpm_bench.config.settings import NoiseSettings

app = typer.Typer(help="Classifiers of noised images, by which samples are guided.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="The classifier's .safetensors file; a .json card is written beside it.")]
Size = Annotated[
    int | None,
    typer.Option(min=LEAST_SIDE, max=MOST_SIDE, help="Side of the images in pixels [default: that of --like]."),
]
Like = Annotated[
    Path | None,
    typer.Option(callback=plain_path, help=f"Images are noised as this model's are. {CKPT_HELP}"),
]
Schedule = Annotated[str | None, typer.Option(help="Of the noise, without --like [default: linear].")]
Steps = Annotated[int | None, typer.Option("--T", min=2, max=MOST_T, help="Steps of it [default: 1000].")]
Beta1 = Annotated[float | None, typer.Option("--beta-1", help="Its first beta [default: 1e-4].")]
BetaT = Annotated[float | None, typer.Option("--beta-T", help="Its last beta [default: 0.02].")]


@app.command("train")
def classifier_train(
    out: Out,
    data: Data = "embedded",
    data_name: DataName = None,
    data_root: DataRoot = None,
    size: Size = None,
    resize: Resizing = None,
    like: Like = None,
    schedule: Schedule = None,
    T: Steps = None,
    beta_1: Beta1 = None,
    beta_T: BetaT = None,
    kind: Annotated[
        str, typer.Option(help="Its network and training: tiny, small, or adm-64, adm-128, adm-256, adm-512.")
    ] = "small",
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps [default: as the kind says].")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a step [default: as the kind says].")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of AdamW, falling to 0 [default: as the kind says].")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW [default: 0.05].")] = None,
    crops: Annotated[
        float | None, typer.Option(help="Least side of random crops, in sides; 1 for none [default: as the kind says].")
    ] = None,
    flips: Annotated[
        bool | None,
        typer.Option("--flips/--no-flips", help="Whether half of the images are mirrored [default: as the kind says]."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a classifier on a labelled data set, noised, to guide the samples of a model of the same noise.

    Example: `ddpm-bench classifier train --data folder:photos --size 32 --like runs/eps --out photos.safetensors`

    Example: `ddpm-bench classifier train --data cifar10 --size 32 --schedule cosine --T 4000 --out cifar10.safetensors`
    """
    from ddpm_bench.cli.setup import section
    from ddpm_bench.config.classifiers import CLASSIFIERS, ClassifierTraining
    from ddpm_bench.config.settings import DataSettings
    from ddpm_bench.data import load_data
    from ddpm_bench.experiment.classifiers import accuracy_in_words, make_classifier
    from ddpm_bench.files import check_weights_file
    from ddpm_bench.networks.kept import write_network
    from ddpm_bench.runtime.device import choose_device
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import say
    from ddpm_bench.runtime.runtime import Runtime

    if kind not in CLASSIFIERS:
        raise UserError(f"there is no kind of classifier '{kind}'{near_miss(kind, CLASSIFIERS)}")
    check_weights_file(out, "A classifier")
    noise, size = _noise_and_size(like, size, {"schedule": schedule, "T": T, "beta_1": beta_1, "beta_T": beta_T})
    asked = {
        "steps": steps, "batch": batch, "learning_rate": learning_rate, "weight_decay": weight_decay, "crops": crops,
        "flips": flips, "seed": seed,
    }  # fmt: skip
    usual = CLASSIFIERS[kind].model_dump()
    training = section(ClassifierTraining, usual | {name: held for name, held in asked.items() if held is not None})
    source = {"source": data or "embedded", "name": data_name, "root": data_root, "size": size, "resize": resize}
    with Stop():
        images = load_data(section(DataSettings, source))
        content, card = make_classifier(images, noise, training, Runtime(choose_device(device)))
        write_network(out, content, card)
    say(f"Made '{out}'; {accuracy_in_words(card)}")
    if as_json:
        print_json(card.model_dump(mode="json"))


@app.command("import")
def classifier_import(
    source: Annotated[
        Path, typer.Argument(help="A classifier of OpenAI's guided-diffusion, such as 256x256_classifier.pt.")
    ],
    out: Annotated[Path, typer.Option(help="The classifier's .safetensors file.")],
    size: Size = None,
    like: Like = None,
    schedule: Schedule = None,
    T: Steps = None,
    beta_1: Beta1 = None,
    beta_T: BetaT = None,
    as_json: Json = False,
) -> None:
    """Convert a classifier of someone else's, of which the file does not tell the noise that it was trained on.

    Example: `ddpm-bench classifier import 256x256_classifier.pt --like imported/adm --out adm-classifier.safetensors`
    """
    from ddpm_bench.files import check_weights_file, replacing
    from ddpm_bench.models.classifiers import FILES
    from ddpm_bench.models.interop.openai_classifier import read_classifier
    from ddpm_bench.runtime.observer import say

    check_weights_file(out, "A classifier")
    noise, size = _noise_and_size(like, size, {"schedule": schedule, "T": T, "beta_1": beta_1, "beta_T": beta_T})
    of, tensors, remarks = read_classifier(source, noise, size)
    with replacing(out) as temporary:
        temporary.write_bytes(FILES.content(tensors, of.model_dump_json()))
    if as_json:
        return print_json(of.model_dump(mode="json"))
    parameters, (channels, side, _) = sum(tensor.numel() for tensor in tensors.values()), of.shape
    for remark in remarks:
        say(remark)
    say(
        f"'{out}': {len(of.classes):,} classes, {parameters:,} parameters, of {channels}x{side}x{side}, taken to be noised by the "
        f"schedule {noise.schedule}, T = {noise.T}. Guide with --classifier {out}"
    )


def _noise_and_size(like: Path | None, size: int | None, named: dict[str, Any]) -> "tuple[NoiseSettings, int]":
    """That of the model `like`, or what is named of it, and the images' side. UserError for both, and for no side."""
    from ddpm_bench.cli.setup import section
    from ddpm_bench.config.settings import NoiseSettings
    from ddpm_bench.models.model import load_model

    if like:
        refuse({f"--{name.replace('_', '-')}": held for name, held in named.items()}, "does not go with --like.")
        model = load_model(like)
        return model.process.noise, size or model.shape[1]
    if size is None:
        raise UserError("Of which size are the images? Give --size N, or --like MODEL.")
    return section(NoiseSettings, {name: held for name, held in named.items() if held is not None}), size
