"""Can a sweep run on this machine? `python -m sd2eval doctor`: one line per check, with what to do."""
