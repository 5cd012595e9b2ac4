"""Spanish captions of the mini world's scenes (one fixed wording, with agreement in gender and number)."""

from __future__ import annotations

from sd2eval.mini.world import Item, Scene

_NOUNS = {
    "cube": ("cubo", "cubos", "m"),
    "ball": ("bola", "bolas", "f"),
    "cone": ("cono", "conos", "m"),
    "ring": ("anillo", "anillos", "m"),
}
#: Endings: masculine, feminine, masculine plural, feminine plural; a single word does not change.
_COLOURS = {
    "red": ("rojo", "roja", "rojos", "rojas"),
    "orange": ("naranja",),
    "yellow": ("amarillo", "amarilla", "amarillos", "amarillas"),
    "green": ("verde", "verde", "verdes", "verdes"),
    "cyan": ("cian",),
    "blue": ("azul", "azul", "azules", "azules"),
    "purple": ("morado", "morada", "morados", "moradas"),
    "pink": ("rosa",),
}
_SIZES = {
    "small": ("pequeño", "pequeña", "pequeños", "pequeñas"),
    "large": ("grande", "grande", "grandes", "grandes"),
}
_PLACES = {
    "meadow": "en un prado",
    "beach": "en la playa",
    "snow": "en la nieve",
    "night": "de noche",
    "room": "en una habitación",
}
_RELATIONS = {
    "left of": "a la izquierda de",
    "right of": "a la derecha de",
    "on top of": "encima de",
    "below": "debajo de",
}
_NUMBERS = {2: "dos", 3: "tres"}


def caption(scene: Scene) -> str:
    """The scene in Spanish, mentioning exactly what its flags announce."""
    if scene.kind == "count":
        text = f"{_NUMBERS[scene.count]} {_noun_phrase(scene.items[0], plural=True)}"
    else:
        text = _objects(scene)
    if scene.names_place:
        text += " " + _PLACES[scene.place]
    return text[0].upper() + text[1:] + "."


def _objects(scene: Scene) -> str:
    phrases = [("una " if _NOUNS[i.shape][2] == "f" else "un ") + _noun_phrase(i) for i in scene.items]
    if scene.relation is None:
        return phrases[0]
    if not scene.names_relation:
        return ", ".join(phrases[:-1]) + " y " + phrases[-1]
    if scene.kind == "pair":
        return f"{phrases[0]} {_RELATIONS[scene.relation]} {phrases[1]}"
    return f"{phrases[2]} {_RELATIONS[scene.relation]} {phrases[0]} {_RELATIONS['on top of']} {phrases[1]}"


def _noun_phrase(item: Item, plural: bool = False) -> str:
    singular, many, gender = _NOUNS[item.shape]
    form = 2 * plural + (gender == "f")
    words = [many if plural else singular]
    if item.names_colour:
        colour = _COLOURS[item.colour]
        words.append(colour[form] if len(colour) > 1 else colour[0])
    if item.names_size:
        words.append(_SIZES[item.size][form])
    return " ".join(words)
