"""Hydra configs; a package so that `pkg://sd2eval.conf` finds them in a wheel too."""
