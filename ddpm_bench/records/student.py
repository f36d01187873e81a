"""Student's t with a number of degrees of freedom that need not be whole.

Of `scipy.special`, which `scipy.stats` asks too: to import that takes as long as to read a thousand records.
"""

from scipy.special import stdtr, stdtrit


def t_tail(value: float, freedom: float) -> float:
    """P(T > value)."""
    return float(stdtr(freedom, -value))


def t_limit(tail: float, freedom: float) -> float:
    """What T exceeds with the probability `tail`."""
    return -float(stdtrit(freedom, tail))
