"""`python -m sd2eval compare RUN_A [RUN_B]`."""

from __future__ import annotations

import sys

from sd2eval.errors import InputError
from sd2eval.words import parse, truth

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
    words = sys.argv[1:]
    if words in (["--help"], ["-h"]):
        print(HELP)
        return
    runs, options = parse(words, KEYS)
    if len(runs) not in (1, 2):
        raise InputError("usage: python -m sd2eval compare RUN_A [RUN_B] [KEY=VALUE ...]; see --help")
    as_json, common = truth(options, "json", default=False), truth(options, "common", default=False)
    from sd2eval.comparison import tables as compare_tables
    from sd2eval.comparison.compare import compare_runs

    out = compare_tables.check_csv(options["out"]) if "out" in options else None
    with compare_tables.progress() as on_cell:
        found = compare_runs(
            *runs,
            a=options.get("a", ""),
            b=options.get("b", ""),
            metrics=items(options.get("metrics", "")),
            scales=[number(word) for word in items(options.get("scales", ""))],
            common=common,
            correction=options.get("correction", "holm"),
            on_cell=on_cell,
        )
    print(compare_tables.as_json(found)) if as_json else compare_tables.show(found)
    if out is not None:
        compare_tables.write_csv(found, out)


def items(text: str) -> list[str]:
    """Return the items of `[A,B]` or `A,B`."""
    return [item.strip() for item in text.removeprefix("[").removesuffix("]").split(",") if item.strip()]


def number(word: str) -> float:
    """Return a guidance scale.

    Raises:
        InputError: it is no number.
    """
    try:
        return float(word)
    except ValueError:
        raise InputError(f"scales={word}: a number is needed, such as scales=[3,4]") from None
