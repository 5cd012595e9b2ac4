"""How far one run's distance moves with the protocol alone, computed from its images on disk."""
