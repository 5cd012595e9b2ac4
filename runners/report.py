"""`python -m sd2eval report DIR`."""

from __future__ import annotations

import sys

from sd2eval.errors import InputError


def main() -> None:
    """Write the tables and the plot of a run folder again, from its shards; works for a half-finished run."""
    folders = sys.argv[1:]
    if len(folders) != 1 or folders[0].startswith("-"):
        raise InputError("usage: python -m sd2eval report DIR (a run folder, complete or not)")
    from sd2eval import report

    report.write_report(folders[0])
    report.show(report.load_run(folders[0]))
