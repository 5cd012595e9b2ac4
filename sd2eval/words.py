"""The words after a verb that is no Hydra program: positional ones, and KEY=VALUE."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sd2eval.errors import InputError

HELP_WORDS = ("-h", "--help")
TRUTH = {"true": True, "false": False}


def asks_help(words: Sequence[str]) -> bool:
    """Return whether the words ask for help, wherever they do."""
    return any(word in HELP_WORDS for word in words)


def parse(words: Sequence[str], keys: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Return the positional words, and the value of each key that was given.

    Raises:
        InputError: a key that is not one of `keys`, is given twice or has no value; a word like `--force`.
    """
    positional: list[str] = []
    options: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if word.startswith("-"):
            raise InputError(
                f"'{word}': not understood; settings are KEY=VALUE ({_listed(keys)}), see --help"
            )
        if not sign:
            positional.append(word)
            continue
        one_of(key, keys, "key")
        if key in options:
            raise InputError(f"{key}={value}: {key} is given twice")
        if not value:
            raise InputError(f"{key}=: a value is needed")
        options[key] = value
    return positional, options


def one_of(word: str, choices: Collection[str], what: str) -> str:
    """Return `word` if it is one of `choices`.

    Raises:
        InputError: it is not; names the nearest one and all of them. `what` says what they are.
    """
    if word in choices:
        return word
    raise InputError(f"'{word}': no such {what}{nearest(word, choices)} ({what}s: {_listed(choices)})")


def nearest(word: str, choices: Collection[str]) -> str:
    """Return `; did you mean 'X'?`, or nothing where no choice is like the word."""
    import difflib  # only for a mistake

    near = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def truth(options: dict[str, str], key: str, default: bool) -> bool:
    """Return the truth value of a key, or `default` where it was not given.

    Raises:
        InputError: the value is neither true nor false.
    """
    if key not in options:
        return default
    if options[key] not in TRUTH:
        raise InputError(f"{key}={options[key]}: true or false is needed")
    return TRUTH[options[key]]


def number(options: dict[str, str], key: str, default: float) -> float:
    """Return the number that a key has, or `default` where it was not given.

    Raises:
        InputError: the value is no number.
    """
    try:
        return float(options.get(key, default))
    except ValueError:
        raise InputError(f"{key}={options[key]}: a number is needed") from None


def items(options: dict[str, str], key: str) -> list[str]:
    """Return the items of a key's `[A,B]` or `A,B`; none where it was not given."""
    text = options.get(key, "").removeprefix("[").removesuffix("]")
    return [item.strip() for item in text.split(",") if item.strip()]


def numbers(options: dict[str, str], key: str) -> list[float]:
    """Return the numbers of a key's `[1,2.5]`; none where it was not given.

    Raises:
        InputError: an item is no number.
    """
    try:
        return [float(item) for item in items(options, key)]
    except ValueError:
        raise InputError(f"{key}={options[key]}: numbers are needed, such as {key}=[3,8]") from None


def _listed(choices: Collection[str]) -> str:
    return ", ".join(choices) if choices else "none"
