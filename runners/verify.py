"""`python -m sd2eval verify RUN`."""

from __future__ import annotations

import sys

from sd2eval.errors import InputError

HELP = """Usage: python -m sd2eval verify RUN [KEY=VALUE ...]

Is every file of a run folder what was written? Every digest again: the record, the captions, the reference,
each shard, the pixels of each PNG; the scores computed again from the shards; what is missing or too many.
One line per damaged file, the answer first. Needs no weights, no GPU, no torch; changes nothing.

repair=false     true (or --repair): move what is damaged into RUN/quarantine/, where nothing is deleted, and
                 make just that again with the settings of run.json; interrupted, the same command goes on
data.root=DIR    for a repair: where the data set lies now; default: where it lay
device=NAME      for a repair: auto, cpu, cuda, cuda:N or mps; default: as the run was told
json=false       true (or --json) prints everything as JSON
progress=true    false shows no bars or lines meanwhile

A run that is not finished is not damaged: what is still to be done is said, and the exit code is 0.
Exit codes: 0 whole, 1 something is damaged or lost, 2 bad input, 75 a repair was stopped and goes on."""

KEYS = ("repair", "data.root", "device", "json", "progress")
FLAGS = {"--repair": "repair=true", "--json": "json=true"}


def main() -> None:
    """Verify a run folder and leave with 1 if something is damaged."""
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        print(HELP)
        return
    from sd2eval import words

    runs, options = words.parse([FLAGS.get(word, word) for word in arguments], KEYS)
    if len(runs) != 1:
        raise InputError("usage: python -m sd2eval verify RUN [repair=true]; see --help")
    repair, as_json = (words.truth(options, key, False) for key in ("repair", "json"))
    for key in ("data.root", "device"):
        if key in options and not repair:
            raise InputError(f"{key}={options[key]}: goes with repair=true only")
    from sd2eval.verification import printed
    from sd2eval.verification.verify import verify_run

    found = verify_run(
        runs[0],
        repair=repair,
        data_root=options.get("data.root"),
        device=options.get("device"),
        progress=words.truth(options, "progress", True),
    )
    print(printed.as_json(found)) if as_json else printed.show(found)
    if not found.whole:
        raise SystemExit(1)
