"""Data that reports are compared with: the published curves of the model card, committed reference results."""
