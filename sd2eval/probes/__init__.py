"""Probes: each sentence of the card's limitations and biases as prompts and a measurement that answers it."""
