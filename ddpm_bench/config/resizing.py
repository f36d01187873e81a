"""The ways in which images may be brought to another size, by name; `data/resize.py` does them. Imports no torch."""

from typing import Literal

Resize = Literal["pad", "average", "bicubic-antialias"]
"""What can be asked for."""
Older = Literal["older"]
OLDER: Older = "older"
"""What was done to images of another size, unasked, before there was a setting for it: average, then pad, or pad alone."""
