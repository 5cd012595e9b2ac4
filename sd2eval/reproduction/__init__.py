"""The published figure against a run, point by point."""
