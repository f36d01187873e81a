"""Training: Adam with warm-up and clipping, an average of the weights, checkpoints, and what counts as divergence."""
