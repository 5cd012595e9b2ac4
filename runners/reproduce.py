"""`python -m sd2eval reproduce RUN`."""

from __future__ import annotations

import sys

from sd2eval.errors import InputError

HELP = """Usage: python -m sd2eval reproduce RUN [KEY=VALUE ...]

Does a run reproduce the model card's figure? Each of its 24 points, FID and CLIP score, is compared with the
run's cell; the answer comes first, in one sentence. Reads a finished or unfinished run folder; no torch.

A point's band reaches to both sides: sampling error of the run and of the card, the error of reading the
figure, and the protocol spread. Reproduced means: every point of at least one published checkpoint was
measured comparably, and nothing that was compared lies outside its band. FID needs the card's n.

  protocol_spread.fid=0         how far FID moves with what the card leaves open; its default leaves that out
  protocol_spread.clip_score=0  the same for the CLIP score, as a cosine
  level=0.95                    probability that a true reproduction passes, over all points together
  json=true                     print everything as JSON instead of tables
  out=FILE.csv                  write one row per point and metric, with the parts of its band

Exit codes: 0 reproduced, 1 it differs or cannot be compared, 2 bad input."""

SPREADS = {metric: f"protocol_spread.{metric}" for metric in ("fid", "clip_score")}


def main() -> None:
    """Compare a run with the model card's figure and leave with 1 unless it is reproduced."""
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        print(HELP)
        return
    from sd2eval import words

    runs, options = words.parse(arguments, (*SPREADS.values(), "level", "json", "out"))
    if len(runs) != 1:
        raise InputError("usage: python -m sd2eval reproduce RUN (a run folder); see --help")
    as_json = words.truth(options, "json", False)
    level = words.number(options, "level", 0.95)
    spread = {metric: words.number(options, key, 0.0) for metric, key in SPREADS.items()}
    from sd2eval import answers
    from sd2eval.reproduction import reproduce, table

    out = answers.check_csv(options["out"], table.BEGINNING) if "out" in options else None
    result = reproduce.reproduce_run(runs[0], protocol_spread=spread, level=level)
    print(answers.as_json(reproduce.record(result))) if as_json else table.show(result)
    if out is not None:
        answers.write_csv(result.points, out)
    if not result.reproduced:
        raise SystemExit(1)
