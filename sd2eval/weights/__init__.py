"""The published weights: what they are called, where they are, and whether they are what they are called."""
