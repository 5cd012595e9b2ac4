"""Which cells of two runs belong together, or why they do not: what `compare` asks before any number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sd2eval import evaluate
from sd2eval.errors import InputError
from sd2eval.plan import Cell
from sd2eval.records import RunInfo
from sd2eval.store import RunFolder
from sd2eval.words import one_of

# How images are drawn may differ: that is what is compared. How they are scored may not.
_FREE = ("protocol.name", "protocol.metrics", "protocol.sample_at")
_SHOWN = 3
"""Fields that a refusal names before it only counts."""

Pair = tuple[Cell, Cell]


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    letter: str
    """`A` or `B`, as everywhere in the output."""
    store: RunFolder
    info: RunInfo

    @cached_property
    def prompts(self) -> list[dict[str, Any]]:
        """The captions in their order, with the fields of `Prompt`."""
        return self.store.read_prompts()

    @property
    def checkpoints(self) -> list[str]:
        """The names of the run's checkpoints."""
        return evaluate.checkpoint_names(self.info)

    @property
    def scales(self) -> list[float]:
        """The run's guidance scales, in the order of its arrays."""
        return list(self.info.config["guidance_scales"])

    def definition(self, checkpoint: str) -> dict[str, Any]:
        """Return the definition of a checkpoint, as in `run.json`."""
        return dict(self.info.config["checkpoint_definitions"][checkpoint])


@dataclass(frozen=True)
class Choice:
    """What `a=` or `b=` asks for: CHECKPOINT, @SCALE or CHECKPOINT@SCALE."""

    checkpoint: str | None = None
    scale: float | None = None

    @staticmethod
    def parse(key: str, word: str) -> Choice:
        """Return the choice that a word of the command line makes.

        Raises:
            InputError: what follows the @ is no number.
        """
        name, sign, number = word.partition("@")
        try:
            return Choice(name or None, float(number) if sign else None)
        except ValueError:
            raise InputError(
                f"{key}={word}: a guidance scale is needed after the @, such as {name}@3"
            ) from None


@dataclass(frozen=True)
class Pairing:
    """Cells that are compared, captions that both runs have, and what a reader must know about it."""

    cells: list[Pair]
    captions: list[int]
    """Caption ids in A's order."""
    notes: list[str]


def open_side(letter: str, path: str | Path) -> Side:
    """Return a run to compare.

    Raises:
        InputError: there is no run.
    """
    store = RunFolder(Path(path).expanduser())
    return Side(letter, store, store.read_info())


def pair(
    a: Side, b: Side, choices: tuple[Choice, Choice], scales: Sequence[float] = (), *, common: bool = False
) -> Pairing:
    """Match the cells and captions of two runs.

    Args:
        a: the first run.
        b: the second, may be the same.
        choices: what `a=` and `b=` ask for.
        scales: guidance scales to restrict to; empty takes all that both have.
        common: compare the captions that both have where one run has more.

    Raises:
        InputError: the runs do not pair; one line that names the field and both values.
    """
    refuse_other_scores(a, b)
    refuse_other_noise(a, b)
    names, left_names = _checkpoints(a, b, *choices)
    matched, left_scales = _scales(a, b, choices[0].scale, choices[1].scale, scales)
    for side, position in ((a, 0), (b, 1)):
        for name in dict.fromkeys(pair[position] for pair in names):
            if not evaluate.complete(side.store, side.info, name):
                raise InputError(
                    f"{side.store.path}: {name} is not complete; run its sweep again, or choose others with "
                    f"a= and b="
                )
    captions, left_captions = _captions(a, b, common=common)
    cells = [(Cell(left, s), Cell(right, t)) for left, right in names for s, t in matched]
    return Pairing(cells, captions, [*left_names, *left_scales, *left_captions])


def refuse_other_scores(a: Side, b: Side) -> None:
    """Refuse runs whose images were scored in different ways.

    Raises:
        InputError: names the fields of the protocol, extractor or reference that differ, and both values.
    """
    there, here = _scoring(a.info), _scoring(b.info)
    both = there.keys() & here.keys()
    # An extractor that only one run loaded belongs to a metric that only one run has.
    names = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
    names = [key for key in names if key in both or key.startswith("protocol.")]
    if names:
        said = "; ".join(f"{key}: {there.get(key)} in A, {here.get(key)} in B" for key in names[:_SHOWN])
        more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise InputError(f"the runs do not pair, their images are scored differently ({said}{more})")


def _scoring(info: RunInfo) -> dict[str, Any]:
    fields = {
        key: value
        for key, value in info.identity_fields.items()
        if key.startswith("protocol.") and key not in _FREE
    }
    digests = {
        f"digests.{name}": digest[:12]
        for name, digest in info.digests.items()
        if name.startswith("extractor/") or name == "reference"
    }
    return fields | digests


def refuse_other_noise(a: Side, b: Side) -> None:
    """Refuse runs of different seeds: their images of a caption come from unrelated noise.

    Raises:
        InputError: names both seeds.
    """
    seeds = a.info.config["seed"], b.info.config["seed"]
    if seeds[0] != seeds[1]:
        raise InputError(
            f"the runs do not pair, their noise is unrelated (seed: {seeds[0]} in A, {seeds[1]} in B); "
            f"run one of them again with the other's seed"
        )


def _checkpoints(a: Side, b: Side, left: Choice, right: Choice) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the pairs of checkpoints, and a note about those that only one run has."""
    same = a.store.path.resolve() == b.store.path.resolve()
    if left.checkpoint or right.checkpoint:
        first = _partner(a, left.checkpoint, right.checkpoint, same)
        return [(first, _partner(b, right.checkpoint, first, same))], []
    if len(a.checkpoints) == len(b.checkpoints) == 1:
        return [(a.checkpoints[0], b.checkpoints[0])], []
    both = [name for name in a.checkpoints if name in b.checkpoints]
    if not both:
        raise InputError(
            f"no checkpoint is in both runs (A: {', '.join(a.checkpoints)}; B: {', '.join(b.checkpoints)}); "
            f"say which two with a=NAME b=NAME"
        )
    return [(name, name) for name in both], list(_only(a.checkpoints, b.checkpoints, "checkpoint", str))


def _partner(side: Side, name: str | None, other: str | None, same: bool) -> str:
    """Return the checkpoint chosen in a run, or where none is, the only one or the other side's name."""
    key = f"{side.letter.lower()}="
    if name:
        return one_of(name, side.checkpoints, f"{side.letter} checkpoint")
    if len(side.checkpoints) == 1:
        return side.checkpoints[0]
    if other in side.checkpoints and not same:
        return str(other)
    raise InputError(f"{key}: which checkpoint of {side.letter}? one of {', '.join(side.checkpoints)}")


def _scales(
    a: Side, b: Side, left: float | None, right: float | None, wanted: Sequence[float]
) -> tuple[list[tuple[float, float]], list[str]]:
    """Return the pairs of guidance scales, and a note about those that only one run has."""
    if left is not None or right is not None:
        if wanted:
            raise InputError("scales= and a guidance scale after @ exclude each other; give one of them")
        first, second = left if left is not None else right, right if right is not None else left
        assert first is not None
        assert second is not None
        return [(_scale(a, first), _scale(b, second))], []
    if wanted:
        return [(_scale(a, scale), _scale(b, scale)) for scale in dict.fromkeys(wanted)], []
    both = [scale for scale in a.scales if scale in b.scales]
    if not both:
        raise InputError(
            f"no guidance scale is in both runs (A: {_numbers(a.scales)}; B: {_numbers(b.scales)}); "
            f"say which two with a=@SCALE b=@SCALE"
        )
    return [(s, s) for s in both], list(_only(a.scales, b.scales, "guidance scale", lambda s: f"{s:g}"))


def _scale(side: Side, scale: float) -> float:
    if scale not in side.scales:
        raise InputError(f"guidance scale {scale:g}: not in {side.letter}, which has {_numbers(side.scales)}")
    return scale


def _captions(a: Side, b: Side, *, common: bool) -> tuple[list[int], list[str]]:
    """Return the caption ids to compare, in A's order, and a note if they are not all.

    Raises:
        InputError: the captions differ and `common` is not set, or nothing is common, or a caption has
            another text or image.
    """
    left = {prompt["caption_id"]: prompt for prompt in a.prompts}
    right = {prompt["caption_id"]: prompt for prompt in b.prompts}
    both = [key for key in left if key in right]
    for key in both:
        for field in ("text", "image_id"):
            if left[key][field] != right[key][field]:
                raise InputError(
                    f"the runs do not pair, caption {key} is not the same ({field}: "
                    f"{left[key][field]!r} in A, {right[key][field]!r} in B)"
                )
    counts = f"{len(left)} in A, {len(right)} in B, {len(both)} in both"
    if len(both) == len(left) == len(right):
        return both, []
    if not both:
        raise InputError(f"the runs do not pair, they have no caption in common ({counts})")
    if not common:
        raise InputError(
            f"the runs do not pair, their captions differ ({counts}); common=true compares those in both"
        )
    return both, [f"only the captions that both have are compared: {counts}"]


def _only(left: Sequence[Any], right: Sequence[Any], what: str, show: Any) -> Iterator[str]:
    """Yield a line on what one run has and the other lacks."""
    for letter, here, there in (("A", left, right), ("B", right, left)):
        alone = [show(item) for item in here if item not in there]
        if alone:
            yield f"only in {letter} and not compared: {what} {', '.join(alone)}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def shares_noise(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two checkpoints draw latents of one size: only then are their images made from the same noise.

    Args:
        a: definition of a checkpoint.
        b: of the other. An upscaling checkpoint's latents are larger at the same resolution.
    """
    enlarging = [definition.get("conditioning") == "upscaling" for definition in (a, b)]
    return bool(a["resolution"] == b["resolution"]) and enlarging[0] == enlarging[1]
