"""`ddpm-bench evaluate`: images or checkpoints of anyone, scored; checkpoints as rows of a table that grows."""
