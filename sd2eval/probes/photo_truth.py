"""Real photographs whose objects people have marked, to measure a detector's errors on: COCO's instances."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sd2eval.errors import InputError
from sd2eval.probes.proportions import Confusion
from sd2eval.probes.sightings import Found

SEED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """What people marked in a photograph."""

    file: str
    objects: Mapping[str, int]
    """How many of each category; crowds count as one."""
    crowds: frozenset[str]
    """Categories of which more are there than were counted."""


def load_coco(path: Path) -> Any:
    """Return COCO's own index of an annotation file, without its talk.

    Raises:
        InputError: it cannot be read as one.
    """
    from pycocotools.coco import COCO

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(path))
        for part in ("images", "annotations", "categories"):
            coco.dataset[part]
        return coco
    except (OSError, json.JSONDecodeError, KeyError, TypeError, AssertionError) as error:
        raise InputError(
            f"{path}: cannot be read as COCO annotations ({type(error).__name__}: {error})"
        ) from error


def photos(path: Path) -> list[Photo]:
    """Return what an `instances` file says of each of its images, by ascending image id."""
    coco = load_coco(path)
    names = {one["id"]: one["name"] for one in coco.loadCats(coco.getCatIds())}
    found = []
    for image in coco.loadImgs(sorted(coco.getImgIds())):
        marked = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        found.append(
            Photo(
                file=image["file_name"],
                objects=Counter(names[one["category_id"]] for one in marked),
                crowds=frozenset(names[one["category_id"]] for one in marked if one["iscrowd"]),
            )
        )
    return found


def categories(path: Path) -> list[str]:
    """Return the names of an annotation file's categories."""
    coco = load_coco(path)
    return [one["name"] for one in coco.loadCats(sorted(coco.getCatIds()))]


def presence(
    truths: Sequence[Photo], seen: Sequence[Sequence[Found]], least: float, names: Sequence[str]
) -> Confusion:
    """Return how often a category is found where it is marked, and where it is not.

    Per photograph every marked category is a positive; as many that are not, drawn at random, are negatives.

    Args:
        truths: photographs.
        seen: what the detector found in each.
        least: smallest score that counts.
        names: of all categories.
    """
    rng = np.random.default_rng(SEED)
    hits = positives = alarms = negatives = 0
    for truth, found in zip(truths, seen, strict=True):
        told = {one.label for one in found if one.score > least}
        there = sorted(truth.objects)
        absent = [name for name in names if name not in truth.objects]
        others = rng.permutation(np.array(absent, dtype=object))[: len(there)]
        hits, positives = hits + sum(name in told for name in there), positives + len(there)
        alarms, negatives = alarms + sum(name in told for name in others), negatives + len(others)
    return Confusion(hits=hits, positives=positives, false_alarms=alarms, negatives=negatives)


def counts(truths: Sequence[Photo], seen: Sequence[Sequence[Found]], least: float) -> Confusion:
    """Return how often "n of these" is said where there are n (2 to 4), and where there are not.

    Positives are categories of which 2 to 4 are marked. As negatives each of these is asked for with another
    number of the three.
    """
    rng = np.random.default_rng(SEED)
    hits = positives = alarms = 0
    for truth, found in zip(truths, seen, strict=True):
        told = Counter(one.label for one in found if one.score > least)
        for name, number in sorted(truth.objects.items()):
            if name in truth.crowds or not 2 <= number <= 4:
                continue
            other = int(rng.choice([one for one in (2, 3, 4) if one != number]))
            positives += 1
            hits, alarms = hits + (told[name] == number), alarms + (told[name] == other)
    return Confusion(hits=hits, positives=positives, false_alarms=alarms, negatives=positives)
