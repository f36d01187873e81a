"""Training: Adam with warm-up and clipping, an average of the weights, snapshots, and what counts as divergence."""
