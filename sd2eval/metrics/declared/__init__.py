"""The metrics that this package declares: every module here with `METRICS` is found by itself."""
