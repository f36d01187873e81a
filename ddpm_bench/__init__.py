"""ddpm-bench: Table 2 of "Denoising Diffusion Probabilistic Models" (Ho, Jain, Abbeel 2020), measured.

Importing the package loads no torch; `ddpm-bench --help` stays instant.
"""

__version__ = "0.1.0"
