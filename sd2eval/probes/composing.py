"""Does a picture hold what a sentence asks for? Objects, numbers, colours and places, judged as GenEval does.

Ghosh et al. 2023: an object counts from a confidence of 0.3 on, from 0.9 on where they are counted; as many
of the surest as are asked for must have the colour; a picture with one more than asked for is wrong in
counting. One is left of another if the centres lie apart by more than a tenth of both widths, and more than
half of the distance points that way. Beside that verdict stands partial credit as T2I-CompBench gives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sd2eval.errors import InputError
from sd2eval.probes.sightings import Found

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""GenEval's, whose unweighted mean is its score."""
STACK = "stack"
"""Two coloured things, one on top of the other: the card's example."""
NEAR = 0.1
"""Share of both boxes' sizes by which centres must lie apart."""
POINTING = 0.5
"""Share of the distance that must point the way that is asked for."""
DIRECTIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
"""Axis (x, y) and sign of the first centre less the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """An object that is asked for."""

    label: str
    colour: str = ""
    """Empty: any."""
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a sentence asks for."""

    task: str
    things: tuple[Thing, ...]
    relation: str = ""
    """Where the first thing is, seen from the second: a key of `DIRECTIONS`, or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a picture holds it."""

    correct: bool
    reason: str
    """Everything that is wrong, separated by '; '; empty where nothing is."""
    credit: float
    """Partial credit, 0..1."""


def wanted_of(labels: Mapping[str, str]) -> Wanted:
    """Return what a prompt's labels ask for.

    Labels: task, first, first_colour, count, second, second_colour, relation.

    Raises:
        InputError: a label is missing or is not known.
    """
    task, first = labels.get("task", ""), labels.get("first", "")
    relation, count = labels.get("relation", ""), labels.get("count", "1")
    if task not in (*TASKS, STACK):
        raise InputError(
            f"a composition prompt's label 'task' is '{task}'; allowed: {', '.join((*TASKS, STACK))}"
        )
    if not first or not count.isdecimal() or (relation and relation not in DIRECTIONS):
        raise InputError(
            "a composition prompt needs the label 'first', a whole 'count', and a 'relation' that is one of "
            f"{', '.join(DIRECTIONS)} or left out; got {dict(labels)}"
        )
    things = [Thing(label=first, colour=labels.get("first_colour", ""), count=int(count))]
    if labels.get("second"):
        things.append(Thing(label=labels["second"], colour=labels.get("second_colour", "")))
    return Wanted(task=task, things=tuple(things), relation=relation)


def needed(wanted: Wanted, found: Sequence[Found], least: float) -> list[Found]:
    """Return the objects that a verdict looks at: of each kind as many of the surest as are asked for."""
    chosen: list[Found] = []
    for thing in wanted.things:
        chosen += _of(thing.label, found, least)[: thing.count]
    return chosen


def judge(wanted: Wanted, found: Sequence[Found], least: float) -> Verdict:
    """Return whether a picture holds what is wanted.

    Args:
        wanted: what is asked for.
        found: what a detector sees, with the colours of `needed` objects filled in.
        least: smallest score of an object that counts.
    """
    groups = [_of(thing.label, found, least) for thing in wanted.things]
    reasons = [
        _fault(thing, group, exact=wanted.task == "counting")
        for thing, group in zip(wanted.things, groups, strict=True)
    ]
    if wanted.relation and all(groups):
        reasons.append(_misplaced(wanted, groups[0][0], groups[1][0]))
    reason = "; ".join(filter(None, reasons))
    return Verdict(correct=not reason, reason=reason, credit=_credit(wanted, groups, reasons))


def relations(first: Found, second: Found) -> set[str]:
    """Return where the first object is, seen from the second; none where they lie too near to say."""
    boxes = np.array([first.box, second.box]).reshape(2, 2, 2)
    centres, sizes = boxes.mean(axis=1), np.abs(boxes[:, 1] - boxes[:, 0])
    offset = centres[0] - centres[1]
    beyond = np.clip(np.abs(offset) - NEAR * sizes.sum(axis=0), 0, None) * np.sign(offset)
    if (np.abs(beyond) < 1e-3).all():
        return set()
    pointing = beyond / np.linalg.norm(offset)
    return {name for name, (axis, sign) in DIRECTIONS.items() if sign * pointing[axis] > POINTING}


def _of(label: str, found: Sequence[Found], least: float) -> list[Found]:
    """Return the objects of a kind, the surest first."""
    return sorted(
        (one for one in found if one.label == label and one.score > least), key=lambda one: -one.score
    )


def _fault(thing: Thing, group: Sequence[Found], *, exact: bool) -> str:
    """Return what is wrong with one thing; empty if nothing."""
    if len(group) < thing.count:
        return f"{len(group)} of {thing.count} {thing.label}" if thing.count > 1 else f"no {thing.label}"
    if exact and len(group) > thing.count:
        return f"{len(group)} instead of {thing.count} {thing.label}"
    colours = [one.colour for one in group[: thing.count]]
    if thing.colour and colours != [thing.colour] * thing.count:
        return f"{thing.label} is {' and '.join(dict.fromkeys(colours))}, not {thing.colour}"
    return ""


def _misplaced(wanted: Wanted, first: Found, second: Found) -> str:
    seen = relations(first, second)
    if wanted.relation in seen:
        return ""
    where = " and ".join(sorted(seen)) or "no clear side of"
    return f"{first.label} is {where} {second.label}, not {wanted.relation}"


def _credit(wanted: Wanted, groups: Sequence[Sequence[Found]], reasons: Sequence[str]) -> float:
    """Return partial credit: half for what is there, half for number or place; colours by thing."""
    there = float(np.mean([bool(group) for group in groups]))
    if wanted.task == "counting":
        return there / 2 + (not reasons[0]) / 2
    if wanted.relation:
        placed = len(reasons) > len(wanted.things) and not reasons[-1]
        things = float(np.mean([not reason for reason in reasons[: len(wanted.things)]]))
        return things / 2 + placed / 2
    return float(np.mean([not reason for reason in reasons]))
