"""`python -m sd2eval data fetch coco` and `data verify`."""

from __future__ import annotations

import sys
from pathlib import Path

from sd2eval.errors import InputError, resumable
from sd2eval.words import one_of, parse, truth

HELP = """Usage: python -m sd2eval data fetch coco [KEY=VALUE ...]
       python -m sd2eval data verify [root=DIR]

fetch downloads what a folder lacks of COCO 2017 validation: 5,000 images (816 MB), annotations (253 MB).
verify reads every file of such a folder, whoever made it; exit code 0 if it is whole, 2 if not.

root=datasets/coco    the folder; gets annotations/ and val2017/
images_url=URL        a mirror of val2017.zip; its digest decides
annotations_url=URL   a mirror of annotations_trainval2017.zip; its digest decides
keep_archives=false   true leaves the archives in the folder

Interrupt it whenever you like; the same command goes on where it was."""

KEYS = {"fetch": ("root", "images_url", "annotations_url", "keep_archives"), "verify": ("root",)}


def main() -> None:
    """Fetch or check the data set, and say what there is."""
    words = sys.argv[1:]
    if words in (["--help"], ["-h"]):
        print(HELP)
        return
    if not words:
        raise InputError(f"data: do what? {', '.join(KEYS)}; see `python -m sd2eval data --help`")
    action = one_of(words[0], KEYS, "action")
    names, options = parse(words[1:], KEYS[action])
    if len(names) != 1 and (action, names) != ("verify", []):
        raise InputError(f"usage: python -m sd2eval data {action} coco [KEY=VALUE ...]")
    one_of((names or ["coco"])[0], ("coco",), "data set")
    keep = truth(options, "keep_archives", default=False)
    from sd2eval import coco

    root = Path(options.get("root", coco.DEFAULT_ROOT)).expanduser()
    urls = options.get("images_url", ""), options.get("annotations_url", "")
    if action == "verify":
        found = coco.verify_coco(root)
    else:
        with resumable():
            found = coco.fetch_coco(root, *urls, keep_archives=keep)
    coco.show(root, found)
