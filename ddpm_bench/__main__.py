"""`python -m ddpm_bench` is `ddpm-bench`."""

from ddpm_bench.cli import main

main()
