"""Results that lie elsewhere: an object store, or any other place that fsspec has a URL for."""
