"""As `python -m ddpm_bench`, but that jobs for Slurm are submitit's processes of this machine."""

from dataclasses import dataclass

from ddpm_bench.cli import main
from ddpm_bench.experiment.launchers import LAUNCHERS, Slurm


@dataclass(frozen=True)
class SlurmHere(Slurm):
    cluster: str = "local"


if __name__ == "__main__":
    LAUNCHERS["slurm"] = SlurmHere
    main()
