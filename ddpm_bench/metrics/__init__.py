"""How good are the images: Inception Score, Frechet and kernel distances, precision and recall, and their anchors."""
