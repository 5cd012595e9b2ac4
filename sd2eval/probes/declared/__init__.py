"""One module per probe with `PROBE`, found by its file name (`sd2eval.probes.registry`)."""
