"""What no file may do: an object whose pickle runs something when it is opened."""

import os
from pathlib import Path


class Harmful:
    """Would make the folder `proof`, if it were unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)
