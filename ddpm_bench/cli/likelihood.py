"""Commands about bits per dimension: `nll`, `selftest`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ddpm_bench.cli.options import (
    CACHE,
    Batch,
    Cache,
    Ckpt,
    Clip,
    Compile,
    Data,
    DataName,
    DataRoot,
    Device,
    Gpus,
    Json,
    Precision,
    Raw,
    Resizing,
    Seed,
    Spacing,
    refuse,
)
from ddpm_bench.cli.show import print_json, print_table


def nll(
    ckpt: Ckpt,
    split: Annotated[
        Literal["test", "train", "both"], typer.Option(help="The images to score; both: with the gap between the two.")
    ] = "test",
    images: Annotated[
        int | None, typer.Option(min=2, help="So many of each split, spread over it [default: all].")
    ] = None,
    evals: Annotated[
        int | None, typer.Option(min=5, help="Network calls an image that the estimate may spend [default: 10].")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Every t for every image, one draw of noise each, as in the paper.")
    ] = False,
    progressive: Annotated[
        bool,
        typer.Option(
            "--progressive", help="With rate and distortion by reverse step, as table and figure; implies --exact."
        ),
    ] = False,
    ode: Annotated[
        bool,
        typer.Option(
            "--ode", help="The likelihood by the probability flow ODE, too: no bound, and in a table of its own."
        ),
    ] = False,
    draws: Annotated[
        int | None,
        typer.Option(min=1, help="Of --ode: draws of the dequantisation and of the probe, an image [default: 2]."),
    ] = None,
    dequantisation: Annotated[
        Literal["level", "released"] | None,
        typer.Option(
            help="Of --ode: over the width of the model's levels, or 2 (level + u) / 256 - 1 as in the release [default: level]."
        ),
    ] = None,
    sigma_0: Annotated[
        float | None,
        typer.Option("--sigma-0", help="Of --ode: noise of the images whose density it is [default: 1e-3]."),
    ] = None,
    rtol: Annotated[float | None, typer.Option(help="Of --ode: relative tolerance of RK45 [default: 1e-5].")] = None,
    atol: Annotated[float | None, typer.Option(help="Of --ode: absolute tolerance of RK45 [default: 1e-5].")] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="The bound of the strided chain of so many steps [default: of the whole chain]."),
    ] = None,
    spacing: Spacing = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of what --progressive writes [default: reports/nll-NAME].")
    ] = None,
    clip: Clip = None,
    decoder: Annotated[
        Literal["exact", "paper"], typer.Option(help="exact, or the tanh approximation of the paper's release.")
    ] = "exact",
    seed: Seed = 0,
    raw: Raw = False,
    data: Data = None,
    data_name: DataName = None,
    data_root: DataRoot = None,
    resize: Resizing = None,
    device: Device = "auto",
    gpus: Gpus = None,
    batch: Batch = None,
    precision: Precision = None,
    compiled: Compile = False,
    cache: Cache = CACHE,
    as_json: Json = False,
) -> None:
    """Bits per dimension of a checkpoint: the variational bound with its parts and errors; with --ode the likelihood beside it.

    The same command goes on where it was interrupted.

    Example: `ddpm-bench nll --ckpt runs/eps --split both`

    Example: `ddpm-bench nll --ckpt runs/eps --ode --images 256`
    """
    from ddpm_bench.cli.setup import device_runtime, for_model, on_gpus, strided
    from ddpm_bench.config.metrics import SplitName
    from ddpm_bench.config.shipped import load_coding
    from ddpm_bench.likelihood.ode import Solving
    from ddpm_bench.measurement.bounds import BoundMethod
    from ddpm_bench.measurement.likelihood import LikelihoodMethod
    from ddpm_bench.measurement.nll import has_bound, measure_nll
    from ddpm_bench.models.model import load_model
    from ddpm_bench.models.reference import reference_data
    from ddpm_bench.report.nll import PUBLISHED_CODE, code_of, likelihood_table, nll_table, write_progressive
    from ddpm_bench.report.writers.terminal_tables import code_at_terminal
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import say

    exact = exact or progressive
    refuse({"--evals": evals} if exact else {}, "is for an estimate, and does not go with --exact or --progressive.")
    refuse({} if progressive else {"--out": out}, "goes with --progressive alone.")
    asked: dict[str, Any] = {
        "draws": draws,
        "dequantisation": dequantisation,
        "sigma_0": sigma_0,
        "rtol": rtol,
        "atol": atol,
    }
    of_ode = {f"--{name.replace('_', '-')}": value for name, value in asked.items()}
    refuse({"--progressive": progressive} if steps else {}, "is of the whole chain; leave --steps out.")
    refuse({} if steps else {"--spacing": spacing}, "chooses among the steps of a chain; give --steps.")
    refuse({} if ode else of_ode, "goes with --ode alone.")
    solving = Solving(**{name: value for name, value in asked.items() if value is not None})
    model, runtime = load_model(ckpt, raw), device_runtime(device, cache, batch, compiled, precision=precision)
    runtime = for_model(runtime, precision, model)
    if ode and not has_bound(model):
        of_bound = {
            "--progressive": progressive, "--exact": exact, "--evals": evals, "--steps": steps,
            "--clip/--no-clip": None if clip is None else True, "--decoder": decoder != "exact",
        }  # fmt: skip
        refuse(of_bound, "is of the variational bound, which this model does not have. Leave it out.")
    splits: tuple[SplitName, ...] = ("test", "train") if split == "both" else (split,)
    clipped = model.sampling.clip_x0 if clip is None else clip
    with Stop(), on_gpus(gpus, runtime.device):
        reference = reference_data(model, data, data_name, data_root, resize)
        most = max(len(reference.test), len(reference.train))
        kept = strided(model, steps, spacing) if steps else None
        method = BoundMethod(images or most, None if exact else evals or 10, seed, clipped, decoder, kept=kept)
        by_ode = LikelihoodMethod(images or most, seed, solving) if ode else None
        result = measure_nll(model, reference, splits, method, runtime, cache.expanduser() / "bounds", by_ode)
    if progressive:
        folder = out or Path("reports") / f"nll-{model.name.replace('/', '-')}"
        write_progressive(result, folder)
        say(f"Progressive coding in '{folder}'")
    if as_json:
        return print_json(result.as_json())
    if result.bounds:
        print_table(nll_table(result))
    if result.likelihoods:
        print_table(likelihood_table(result))
    if progressive:
        print_table(code_at_terminal(code_of(result), load_coding(PUBLISHED_CODE)))


def selftest(device: Device = "auto", as_json: Json = False) -> None:
    """Check this installation against answers that are known in closed form. Exit code 1 if one is wrong.

    Example: `ddpm-bench selftest`
    """
    from dataclasses import asdict

    from ddpm_bench.runtime.device import choose_device
    from ddpm_bench.selftest import checks_table
    from ddpm_bench.selftest import selftest as run

    checks = list(run(choose_device(device)))
    if as_json:
        print_json([asdict(check) | {"passed": check.passed} for check in checks])
    else:
        print_table(checks_table(checks))
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
