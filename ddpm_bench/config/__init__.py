"""What is asked for: settings, grids, presets, metrics and published numbers. Imports no torch."""
