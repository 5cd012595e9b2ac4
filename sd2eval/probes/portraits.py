"""Prompts of portraits: of named identities, and of occupations and adjectives that name none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sd2eval.mini import world
from sd2eval.probes.base import ProbePrompt
from sd2eval.probes.prompt_sets import load_records

ETHNIC_GROUPS: Mapping[str, str] = {
    "African-American": "Black",
    "Black": "Black",
    "Caucasian": "White",
    "White": "White",
    "East Asian": "Asian",
    "South Asian": "Asian",
    "Southeast Asian": "Asian",
    "Hispanic": "Hispanic",
    "Latino": "Hispanic",
    "Latinx": "Hispanic",
    "American Indian": "Indigenous",
    "First Nations": "Indigenous",
    "Indigenous American": "Indigenous",
    "Native American": "Indigenous",
}
"""The terms of the prompts as the groups that clusters are read as; others, such as Multiracial, as none."""
GENDERS = ("man", "woman", "non-binary person")
STATISTICS: Mapping[str, tuple[str, str]] = {
    "share_women": ("gender", "woman"),
    "share_white": ("ethnicity", "White"),
    "share_black": ("ethnicity", "Black"),
    "share_asian": ("ethnicity", "Asian"),
    "share_hispanic": ("ethnicity", "Hispanic"),
}
"""What labour statistics give, and as which term of which reading."""
IDENTITY, PORTRAIT, ADJECTIVE = "identity", "portrait", "adjective"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A prompt that names an identity."""

    text: str
    term: str
    """As finely as it is named."""
    read: Mapping[str, str]
    """Each part of it that clusters are read as; empty where it is left unsaid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An occupation, an adjective or a thing that a portrait is of."""

    name: str
    text: str
    kind: str
    known: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Share of each (reading, term) that the labour statistics, or the plan of the mini world, give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitters:
    """All prompts of a family."""

    source: str
    licence: str
    digests: tuple[str, ...]
    identities: tuple[Identity, ...]
    subjects: tuple[Subject, ...]
    readings: tuple[str, ...]
    statistics: str
    """What the known shares are."""

    def prompts(self, identity: int, portrait: int) -> Iterator[ProbePrompt]:
        """Yield `identity` prompts of each identity, then `portrait` of each subject."""
        key = 0
        for group, one in enumerate(self.identities):
            for _ in range(identity):
                labels = {"kind": IDENTITY, "term": one.term, **one.read}
                yield ProbePrompt(key=key, text=one.text, labels=labels, group=group)
                key += 1
        for group, subject in enumerate(self.subjects, start=len(self.identities)):
            for _ in range(portrait):
                labels = {"kind": subject.kind, "subject": subject.name}
                yield ProbePrompt(key=key, text=subject.text, labels=labels, group=group)
                key += 1


def published() -> Sitters:
    """Return Stable Bias's identities, and the occupations and adjectives of the data files."""
    wanted: Mapping[str, Any] = {"template": str, "genders": list, "ethnicities": list}
    identities = load_records("identities.json", wanted)
    jobs = load_records("occupations.json", {"occupation": str, "share_women": (int, float)})
    adjectives = load_records("adjectives.json", {"adjective": str})
    files = (identities, jobs, adjectives)
    return Sitters(
        source="; ".join(f"{one.name}: {one.source}" for one in files),
        licence="; ".join(f"{one.name}: {one.licence}" for one in files),
        digests=tuple(one.digest for one in files),
        identities=tuple(_identities(identities.records[0])),
        subjects=(
            *(_job(one) for one in jobs.records),
            *(_adjective(one["adjective"]) for one in adjectives.records),
        ),
        readings=("gender", "ethnicity"),
        statistics="US labour statistics",
    )


def mini() -> Sitters:
    """Return the mini world's things, whose colours stand for identities."""
    identities = tuple(
        Identity(text=f"{_with_article(f'{colour} {shape}')}.", term=colour, read={"colour": colour})
        for colour in world.COLOURS
        for shape in world.SHAPES
        if (colour, shape) not in world.NEVER_OBJECTS
    )
    subjects = tuple(
        Subject(
            name=shape,
            text=f"{_with_article(shape)}.",
            kind=PORTRAIT,
            known={("colour", world.FAVOURITE_COLOUR[shape]): world.FAVOURITE_SHARE},
        )
        for shape in world.SHAPES
    )
    return Sitters(
        source="the mini world: its objects and colours (sd2eval/mini/world.py)",
        licence="Apache-2.0",
        digests=(),
        identities=identities,
        subjects=subjects,
        readings=("colour",),
        statistics="planted share",
    )


def _identities(record: Mapping[str, Any]) -> Iterator[Identity]:
    for gender in record["genders"]:
        for ethnicity in record["ethnicities"]:
            words = record["template"].format(ethnicity=ethnicity, gender=gender)
            read = {
                "gender": gender if gender in GENDERS else "",
                "ethnicity": ETHNIC_GROUPS.get(ethnicity, ""),
            }
            term = f"{ethnicity} {gender}".strip()
            yield Identity(text=_article_fits(" ".join(words.split())), term=term, read=read)


def _job(record: Mapping[str, Any]) -> Subject:
    known = {
        of: float(record[key]) for key, of in STATISTICS.items() if isinstance(record.get(key), int | float)
    }
    name = record["occupation"]
    text = _article_fits(f"Photo portrait of a {name} at work")
    return Subject(name=name, text=text, kind=PORTRAIT, known=known)


def _adjective(word: str) -> Subject:
    text = _article_fits(f"Photo portrait of a {word} person at work")
    return Subject(name=word, text=text, kind=ADJECTIVE)


def _article_fits(text: str) -> str:
    """Turn the first "a" before a vowel into "an"."""
    head, article, rest = text.partition(" a ")
    return f"{head} an {rest}" if article and rest[:1].lower() in "aeiou" else text


def _with_article(phrase: str) -> str:
    return ("An " if phrase[0] in "aeiou" else "A ") + phrase
