"""Hydra's and OmegaConf's errors about what a user typed, each as one line that names the key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from sd2eval.config.quoting import as_typed, quote
from sd2eval.config.rules import allowed
from sd2eval.config.schema import ProbeConfig, SweepConfig, schema_keys
from sd2eval.errors import InputError


def readable(words: Sequence[str]) -> list[str]:
    """Return a command line as Hydra understands it: values quoted where its grammar needs that.

    A line that asks for help is left with only what the help depends on.

    Raises:
        InputError: see `check_words`.
    """
    known, unknown = _parser().parse_known_args(words)
    if known.help and not unknown:
        folder = ["--config-dir", known.config_dir] if known.config_dir else []
        return ["--help", *folder]
    check_words(words)
    typed = dict(zip(known.overrides, as_typed(known.overrides, many=known.multirun), strict=True))
    return [typed.get(word, word) for word in words]


def check_words(words: Sequence[str]) -> None:
    """Refuse a command line that Hydra would answer with its usage, a traceback or silence.

    Raises:
        InputError: an unknown option, or a word that is no override.
    """
    known, unknown = _parser().parse_known_args(words)
    if unknown:
        _fail(f"{unknown[0]}: there is no such option")
    modes = (known.run, known.cfg, known.multirun, known.shell_completion, known.info)
    if sum(map(bool, modes)) > 1:
        _fail("only one of --run, --cfg, --multirun, --shell-completion and --info can be given")
    if known.resolve and not (known.cfg or known.help):
        _fail("--resolve: allowed beside --cfg and --help")
    for word in known.overrides:
        if not re.match(r"~?[\w.@/]|\+\+?[\w.@/]", word):
            raise InputError(_unreadable(word))
    given = {word.lstrip("+").partition("=")[0] for word in known.overrides}
    if given >= {"checkpoint", "checkpoints"}:
        raise InputError("checkpoint: give either checkpoints=[A,B] or checkpoint=NAME, not both")


def _parser() -> Any:
    parser: Any = get_args_parser()
    parser.error = _fail
    return parser


def _fail(message: str) -> NoReturn:
    raise InputError(f"{message}; settings are written KEY=VALUE, and --help lists them")


def explain(error: Exception, words: Sequence[str]) -> str | None:
    """Return one line for an error of Hydra's about what the user typed, or None if it is none.

    Args:
        error: what Hydra raised.
        words: the overrides on the command line.
    """
    if isinstance(error, AssertionError):  # OmegaConf's answer to a key below a group that is null
        return _below_null(words) if _raised_in(error) == "omegaconf" else None
    if isinstance(error, MissingConfigException):
        return _unknown_option(str(error))
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _key_problem(cause)
    return _hydra_problem(one_line(error)) if isinstance(error, HydraException) else None


def _raised_in(error: Exception) -> str:
    """Return the top-level package of the code that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _below_null(words: Sequence[str]) -> str:
    group = next(
        (word.partition(".")[0].lstrip("+") for word in words if word.startswith("checkpoint.")), None
    )
    if group is None:
        return f"{' '.join(words)}: a key below a group that is null"
    return "checkpoint.*: say which checkpoint to change: checkpoint=NAME checkpoint.KEY=VALUE"


def _unreadable(word: str | None) -> str:
    key, _, value = (word or "").partition("=")
    items = re.fullmatch(r"\[(.*)\]", value)
    if items is not None:
        quoted = ",".join(quote(item.strip().strip("'")) for item in items[1].split(","))
        return f"cannot read the override '{word}': quote what is in the list: \"{key}=[{quoted}]\""
    if value.startswith("{"):
        return f"cannot read the override '{word}': quote what is in it: \"{key}={{A: 'B'}}\""
    return f"cannot read the override '{word}': write KEY=VALUE, lists as KEY=[A,B], without spaces"


def _hydra_problem(line: str) -> str:
    ambiguous = re.match(r"Ambiguous value for argument '([^=']+)=([^']*)'", line)
    if ambiguous is not None:
        key, value = ambiguous.groups()
        return f"{key}={value}: one value is needed; a list is written {key}=[{value}]"
    return line


def _unknown_option(message: str) -> str:
    found = re.search(r"Could not find '([^']+)/([^'/]+)'", message)
    if found is None:
        return " ".join(message.split())
    group, name = found.groups()
    options = re.findall(r"^\t(\S+)$", message.partition("Config search path")[0], re.MULTILINE)
    return (
        f"{group}={name}: unknown; allowed: {', '.join(option for option in options if option != 'schema')}"
    )


def _key_problem(cause: OmegaConfBaseException) -> str:
    first = str(cause).splitlines()[0]
    key = cause.full_key or "config"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and key.startswith("settings."):
        return f"{key}: there is no such key; allowed: {', '.join(cause.parent_node or ()) or 'none'}"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return _no_such_key(key, _schema(cause))
    if "not a ListConfig" in first:
        return f"{key}: a list is needed, such as {key}=[...]"
    if "is not Optional" in first:
        return f"{key}: null is not allowed"
    if key == "precision":
        return "precision: name a metric and its standard error, such as precision.fid=0.3"
    if "is not a subclass of" in first:
        return f"{key}: it holds keys of its own; allowed: {_below(key, _schema(cause))}"
    if "does not support deletion" in first:
        return f"{key}: a key cannot be removed"
    wrong = re.match(r"Value '(.*?)' (?:of type|is not).*(Integer|Float|bool)\b", first)
    if wrong is not None:
        kind = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}[wrong[2]]
        return f"{key}={wrong[1]}: allowed: {kind}"
    return f"{key}: {first[:1].lower()}{first[1:]}"


def _schema(cause: OmegaConfBaseException) -> Any:
    """Return the schema of the config that an error is about."""
    node = cause.parent_node
    root = None if node is None else node._get_root()
    return ProbeConfig if root is not None and OmegaConf.get_type(root) is ProbeConfig else SweepConfig


def _no_such_key(key: str, schema: Any) -> str:
    if key.startswith("checkpoint.components."):
        return f"{key}: not in this checkpoint; allowed with a leading +: {allowed('checkpoint.components')}"
    keys = [name for name, _ in schema_keys(schema)]
    near = difflib.get_close_matches(key, keys, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"keys: {', '.join(k for k in keys if '.' not in k)}"
    return f"{key}: there is no such key; {hint}"


def _below(group: str, schema: Any) -> str:
    keys = [name for name, _ in schema_keys(schema)]
    return ", ".join(key for key in keys if key.rpartition(".")[0] == group)


OPEN_GROUPS = ("components.", ".extractors.", "precision.", "engine.parameters.")
OPEN_TO_PROBES = ("settings", "components", "extractors")
"""Groups of a probe's config whose keys other files and modules name."""


def refuse_added(node: Any, prefix: str = "", schema: Any = SweepConfig) -> None:
    """Refuse keys that were added with `+`, which Hydra lets pass beside the schema."""
    known = {key for key, _ in schema_keys(schema)}
    for key in node:
        name = f"{prefix}{key}"
        if name not in known and not prefix.endswith(OPEN_GROUPS):
            raise InputError(f"{name}: there is no such key; a leading + does not help")
        if schema is ProbeConfig and name in OPEN_TO_PROBES:
            continue
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            # The keys of a further extractor do not depend on its name.
            refuse_added(child, prefix if prefix.endswith(".extractors.") else f"{name}.", schema)


def one_line(error: BaseException) -> str:
    """Return an error's message without its line breaks."""
    return " ".join(str(error).split())
