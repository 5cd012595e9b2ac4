"""Settings, found by sd2eval beside its own."""
