"""`python -m sd2eval report DIR`."""

from __future__ import annotations

import sys

from sd2eval.errors import InputError

HELP = """Usage: python -m sd2eval report DIR

Writes results.csv, results.json, emissions.csv and the Pareto plot of a run folder again, from its shards
alone: no weights, no GPU, no torch. Of an unfinished run the complete cells are reported. While a
sweep is writing there, and on a file system without locks, the table is printed and nothing is written."""


def main() -> None:
    """Write the tables and the plot of a run folder again, from its shards; works for a half-finished run."""
    words = sys.argv[1:]
    if words in (["--help"], ["-h"]):
        print(HELP)
        return
    if len(words) != 1 or words[0].startswith("-"):
        raise InputError("usage: python -m sd2eval report DIR (a run folder, complete or not)")
    from sd2eval import report

    report.show(report.write_report(words[0]))
