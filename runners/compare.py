"""`python -m sd2eval compare RUN_A [RUN_B]`."""

from __future__ import annotations

import sys

from sd2eval.errors import InputError

HELP = """Usage: python -m sd2eval compare RUN_A [RUN_B] [KEY=VALUE ...]

Is B better than A, and how sure are we? Both have the same captions, seed and protocol; whatever else differs
(weights, LoRA, dtype, sampler, guidance scale) is compared, and printed. Needs no weights, no GPU, no torch.

  compare runs/before runs/after                    the checkpoints and guidance scales that both have
  compare runs/study a=512-base b=768-v             two checkpoints of one run
  compare runs/study a=512-base@3 b=512-base@8      two guidance scales
  compare runs/old runs/new a=512-base b=mine       one checkpoint each; not needed where a run has only one

a=NAME b=NAME           checkpoint, @SCALE or CHECKPOINT@SCALE of each side
metrics=[A,B]           only these, and the first sentence speaks about them; default: all that both have,
                        and a sentence about the protocol's distance and score, averaged over all cells
scales=[3,4]            only these guidance scales
common=false            true: where one run has more captions, compare those that both have
correction=holm         of the p-values for their number: holm, or fdr (Benjamini-Hochberg)
json=false              true prints everything as JSON
out=FILE.csv            write one row per comparison

Exit codes: 0 compared, 2 bad input or runs that do not pair."""

KEYS = ("a", "b", "metrics", "scales", "common", "correction", "json", "out")


def main() -> None:
    """Compare two runs and print the answer."""
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        print(HELP)
        return
    from sd2eval import words

    runs, options = words.parse(arguments, KEYS)
    if len(runs) not in (1, 2):
        raise InputError("usage: python -m sd2eval compare RUN_A [RUN_B] [KEY=VALUE ...]; see --help")
    as_json, common = words.truth(options, "json", False), words.truth(options, "common", False)
    scales = words.numbers(options, "scales")
    from sd2eval import answers
    from sd2eval.comparison import tables
    from sd2eval.comparison.compare import compare_runs

    out = answers.check_csv(options["out"], tables.BEGINNING) if "out" in options else None
    with answers.busy("reading", "comparing {}") as on_cell:
        found = compare_runs(
            *runs,
            a=options.get("a", ""),
            b=options.get("b", ""),
            metrics=words.items(options, "metrics"),
            scales=scales,
            common=common,
            correction=options.get("correction", "holm"),
            on_cell=on_cell,
        )
    print(answers.as_json(found.to_json())) if as_json else tables.show(found)
    if out is not None:
        answers.write_csv(found.frame, out)
