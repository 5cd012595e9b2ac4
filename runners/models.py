"""`python -m sd2eval models list | verify | fetch | forget`."""

from __future__ import annotations

import sys
from pathlib import Path

from sd2eval.errors import InputError, resumable

HELP = """Usage: python -m sd2eval models ACTION [NAME ...] [KEY=VALUE ...]

The published weights that the studies use: what there is, what is on this machine, and how to get it.
A file is known by its SHA-256, not by its name. Where none is published, that of the first file used under a
name is recorded, and other files are refused under that name from then on.

  list                    the table: name, file, mirror, size, digest, and whether it is here; hashes nothing
                          and asks no network. json=true prints everything, paths too
  verify [NAME|FILE ...]  hash what is here, or tell what a file is; exit code 1 if anything is not right
  fetch NAME ... | all    download through the hub's cache and check; all: what the model_card study needs.
                          Interrupted, the same command goes on where it was
  forget NAME             forget the digest that was recorded at the first use of a name

Keys
  table=FILE.csv          another table with the columns of sd2eval/weights/published.csv
  progress=true           false shows no bars or lines while hashing and downloading

HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean what they mean to huggingface_hub. Weights not on the
hub lie where torch.hub looks (TORCH_HOME). Digests are recorded in ~/.cache/sd2eval (SD2EVAL_CACHE)."""

ACTIONS = ("list", "verify", "fetch", "forget")


def main() -> None:
    """List, check, download or forget published weights."""
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        print(HELP)
        return
    from sd2eval import words

    names, options = words.parse(arguments, ("table", "json", "progress"))
    if not names:
        raise InputError(f"models: do what? {', '.join(ACTIONS)}; see `python -m sd2eval models --help`")
    action, *names = names
    words.one_of(action, ACTIONS, "action")
    from sd2eval.weights import models
    from sd2eval.weights import table as models_table
    from sd2eval.weights.published import TABLE

    table = Path(options["table"]).expanduser() if "table" in options else TABLE
    progress = words.truth(options, "progress", True)
    if action == "list":
        if names:
            raise InputError(f"models list: takes no names ({' '.join(names)}); try models verify")
        holdings = models.holdings(table)
        as_json = words.truth(options, "json", False)
        print(models_table.as_json(holdings)) if as_json else models_table.show(holdings)
    elif action == "verify":
        if not models.verify_models(names, table, progress=progress):
            raise SystemExit(1)
    elif action == "fetch":
        with resumable():
            models.fetch_models(names, table, progress=progress)
    else:
        if len(names) != 1:
            raise InputError("models forget: give one name")
        models.forget(names[0])
