"""Cells and grids: train, then measure; here or in several processes."""
