"""Prompts, translations and other facts that probes use, each file with its source and licence."""
