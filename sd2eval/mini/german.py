"""German captions of the mini world's scenes (one fixed wording, with cases); none is ever trained on."""

from __future__ import annotations

from sd2eval.mini.world import Item, Scene

_NOUNS = {
    "cube": ("Würfel", "Würfel", "m"),
    "ball": ("Kugel", "Kugeln", "f"),
    "cone": ("Kegel", "Kegel", "m"),
    "ring": ("Ring", "Ringe", "m"),
}
_COLOURS = {
    "red": "rot",
    "orange": "orangefarben",
    "yellow": "gelb",
    "green": "grün",
    "cyan": "türkisfarben",
    "blue": "blau",
    "purple": "violett",
    "pink": "rosafarben",
}
_SIZES = {"small": "klein", "large": "groß"}
_PLACES = {
    "meadow": "auf einer Wiese",
    "beach": "am Strand",
    "snow": "im Schnee",
    "night": "bei Nacht",
    "room": "in einem Zimmer",
}
_RELATIONS = {"left of": "links von", "right of": "rechts von", "on top of": "auf", "below": "unter"}
_NUMBERS = {2: "zwei", 3: "drei"}
_ARTICLES = {"m": ("ein", "einem"), "f": ("eine", "einer")}
_ENDINGS = {"m": ("er", "en"), "f": ("e", "en")}


def caption(scene: Scene) -> str:
    """The scene in German, mentioning exactly what its flags announce."""
    if scene.kind == "count":
        text = f"{_NUMBERS[scene.count]} {_words(scene.items[0], 'e', plural=True)}"
    else:
        text = _objects(scene)
    if scene.names_place:
        text += " " + _PLACES[scene.place]
    return text[0].upper() + text[1:] + "."


def _objects(scene: Scene) -> str:
    items = scene.items
    if scene.relation is None:
        return _noun_phrase(items[0])
    if not scene.names_relation:
        return ", ".join(_noun_phrase(i) for i in items[:-1]) + " und " + _noun_phrase(items[-1])
    if scene.kind == "pair":
        return f"{_noun_phrase(items[0])} {_RELATIONS[scene.relation]} {_noun_phrase(items[1], dative=True)}"
    upper, lower = (_noun_phrase(item, dative=True) for item in items[:2])
    side = f"{_noun_phrase(items[2])} {_RELATIONS[scene.relation]}"
    return f"{side} {upper} {_RELATIONS['on top of']} {lower}"


def _noun_phrase(item: Item, dative: bool = False) -> str:
    gender = _NOUNS[item.shape][2]
    return f"{_ARTICLES[gender][dative]} {_words(item, _ENDINGS[gender][dative])}"


def _words(item: Item, ending: str, plural: bool = False) -> str:
    adjectives = [_SIZES[item.size]] if item.names_size else []
    adjectives += [_COLOURS[item.colour]] if item.names_colour else []
    return " ".join([*(a + ending for a in adjectives), _NOUNS[item.shape][plural]])
