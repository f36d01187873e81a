"""What nothing here was made for more of: stated limits, so that a slip or a foreign file is refused before it costs anything."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Names of grids and cells: files are named after them."""
LARGEST_SEED = 2**64 - 1
"""The largest that torch's generators take."""
MOST_T, MOST_STEPS, MOST_IMAGES = 100_000, 10**9, 10**7
"""Steps of a chain, steps of training, and images of one set."""
MOST = 10**12
"""Of anything that is counted."""
LEAST_SIDE, MOST_SIDE = 8, 1024
"""Pixels of an image's side."""
MOST_CHANNELS, MOST_CLASSES = 1024, 100_000
MOST_THREADS = 10_000
