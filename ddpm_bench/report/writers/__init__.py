"""The writers: blocks as Markdown and as one HTML page, the results table as LaTeX, as numbers and at the terminal."""
