"""A model is measured: samples, scores, pictures, bounds."""
