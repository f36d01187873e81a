"""What was measured: records and rows, where they came from, and how they compare. Imports no torch."""
