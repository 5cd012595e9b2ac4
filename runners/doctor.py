"""`python -m sd2eval doctor [RUN_FOLDER] [KEY=VALUE ...]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sd2eval.errors import InputError
from sd2eval.words import truth

HELP = """Usage: python -m sd2eval doctor [RUN_FOLDER] [KEY=VALUE ...]

Can a sweep run here? Each line says ok, warning or problem, what was found and what to do about it: Python,
packages, torch, devices, cores, memory, disk, weights, hub, data, file locks, caches, sensors. Downloads and
computes nothing; what it writes to try a disk goes away again. A check that fails or hangs is a warning.

  doctor                                                     for the mini study
  doctor experiment=model_card data.root=datasets/coco       for the real one
  doctor runs/study                                          for the run that was begun there

RUN_FOLDER      an existing one; its own settings count, unless others are given
KEY=VALUE       settings of the sweep: `python -m sd2eval sweep --help` lists them
out=DIR         the run folder to be
json=false      true (or --json) prints everything as JSON

Exit codes: 0 no problem (there may be warnings), 1 a problem, 2 bad input."""


def main() -> None:
    """Check the machine and leave with 1 if there is a problem."""
    words = sys.argv[1:]
    if words in (["--help"], ["-h"]):
        print(HELP)
        return
    folder, overrides, as_json = parsed(words)
    from sd2eval.doctor import lines
    from sd2eval.doctor.examine import run_doctor

    diagnosis = run_doctor(*overrides, folder=folder, on_finding=None if as_json else lines.show)
    if as_json:
        print(json.dumps(diagnosis.to_json(), indent=1))
    else:
        print("\n".join(lines.summary(diagnosis, lines.width())))
    if not diagnosis.healthy:
        raise SystemExit(1)


def parsed(words: list[str]) -> tuple[Path | None, list[str], bool]:
    """Return the run folder, the settings of the sweep, and whether JSON is asked for.

    Raises:
        InputError: a word is none of them.
    """
    words = ["json=true" if word == "--json" else word for word in words]
    wrong = [word for word in words if word.startswith("-")]
    folders = [word for word in words if "=" not in word and word[:1] not in ("-", "~")]
    if wrong or len(folders) > 1:
        what = (wrong or folders[1:])[0]
        raise InputError(
            f"'{what}': usage: python -m sd2eval doctor [RUN_FOLDER] [KEY=VALUE ...]; see --help"
        )
    own = [word for word in words if word.startswith("json=")]
    as_json = truth({"json": own[-1].removeprefix("json=")} if own else {}, "json", default=False)
    overrides = [word for word in words if word not in (*own, *folders)]
    if not folders:
        return None, overrides, as_json
    folder = Path(folders[0]).expanduser()
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; a run folder to be is named with out=DIR")
    if any(word.startswith("out=") for word in overrides):
        raise InputError(f"{folder}: give either a run folder or out=DIR, not both")
    return folder, overrides, as_json
