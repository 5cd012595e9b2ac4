"""`python -m sd2eval VERB ...`: finds the verb, and turns every way a verb can end into an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module

import sd2eval
from sd2eval.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_RESUMABLE, exit_codes, leave, outlook
from sd2eval.interrupt import Signals
from sd2eval.streams import guard
from sd2eval.words import HELP_WORDS, asks_help, nearest

VERBS = {
    "sweep": "sample checkpoints over guidance scales, score them, draw the Pareto plot",
    "probe": "the card's limitations and biases, measured: probe all | NAME... [KEY=VALUE]",
    "report": "write tables and plot of a run folder again: report DIR",
    "reproduce": "does a run reproduce the card's figure? a band and a verdict per point: reproduce RUN",
    "compare": "is run B better than run A, and how sure are we? compare RUN_A RUN_B",
    "protocol_matrix": "how much of a difference is only protocol? FID under all: protocol_matrix RUN",
    "doctor": "can a sweep run here? devices, disk, weights, locks: doctor [RUN] [KEY=VALUE]",
    "verify": "is every file of a run what was written? repair=true makes damage again: verify RUN",
    "selfcheck": "does this machine compute what the original code computed?",
    "models": "the published weights: list | verify | fetch NAME | forget NAME",
    "data": "fetch or check COCO 2017 validation: data fetch coco, data verify",
}

HYDRA_VERBS = ("sweep", "probe")
"""They answer `--help` themselves: what it lists depends on other words."""

HELP = """sd2eval {version}: the Stable Diffusion v2 model card as experiments anyone can run

Usage: python -m sd2eval VERB [KEY=VALUE ...]

{verbs}

Start with `python -m sd2eval sweep` (the embedded mini study, a few minutes on a laptop), or with
`python -m sd2eval sweep experiment=model_card dry_run=true` (what the real study would cost here).
`python -m sd2eval VERB --help` explains a verb."""


def process() -> int:
    """Run one verb as all that this process does, and return its exit code.

    A reader that goes away changes nothing. With an answer that could not be written, a 0 becomes a 2.
    """
    signals = Signals()
    stdout = guard()
    code, line = EXIT_DONE, ""
    try:
        code = _ended_with(main)
        sys.stdout.flush()
        if code == EXIT_DONE and stdout.lost:
            code, line = EXIT_BAD_INPUT, f"stdout cannot be written ({stdout.lost}); files are not affected"
    except BaseException:
        if not signals.came:
            raise  # a bug; after a signal it is what became of the KeyboardInterrupt
        code, line = EXIT_RESUMABLE, f"{signals.came}; {outlook()}"
    signals.settle()
    if line:
        print(f"sd2eval: {line}", file=sys.stderr)
    return code


def _ended_with(verb: Callable[[], int]) -> int:
    """Return the exit code with which a verb returned or left."""
    try:
        return verb()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_DONE


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 done, 2 bad input, 75 resumable, 1 anything else."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in (*HELP_WORDS, "help"):
        print(help_text())
        return EXIT_DONE
    if words[0] in ("-V", "--version"):
        print(f"sd2eval {sd2eval.__version__}")
        return EXIT_DONE
    verb, *rest = words
    if verb not in VERBS:
        hint = nearest(verb, VERBS)
        leave(f"'{verb}' is no verb{hint} (verbs: {', '.join(VERBS)})", EXIT_BAD_INPUT)
    if asks_help(rest) and verb not in HYDRA_VERBS:
        rest = ["--help"]
    return _run(verb, rest)


def help_text() -> str:
    """Return what `python -m sd2eval` prints."""
    verbs = "\n".join(f"  {verb:<15} {line}" for verb, line in VERBS.items())
    return HELP.format(version=sd2eval.__version__, verbs=verbs)


def _run(verb: str, words: list[str]) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors over instead of printing them
    sys.argv = [f"sd2eval {verb}", *words]
    try:
        with exit_codes():
            import_module(f"sd2eval.runners.{verb}").main()
    except Exception as error:
        from sd2eval.config import explain

        line = explain(error, words)
        if line is None:
            raise
        leave(line, EXIT_BAD_INPUT)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(process())
