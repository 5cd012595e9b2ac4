"""Are these the weights that their name says? The digest decides, never a file's or a repository's name."""

from __future__ import annotations

from dataclasses import dataclass

from sd2eval.checkpoints.single_file import check_contents
from sd2eval.checkpoints.sources import Sources, digest, resolve
from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.config import CheckpointConfig
from sd2eval.digests import file_digest
from sd2eval.errors import InputError
from sd2eval.published import TABLE, Published, by_digest, published, remember


@dataclass(frozen=True)
class Weights:
    """A checkpoint's files, and the SHA-256 that names them."""

    sources: Sources
    digest: str


def find_weights(definition: CheckpointConfig) -> Weights:
    """Find a checkpoint's files, fetch what is not here, and make sure that they are what they are called.

    Raises:
        InputError: they cannot be had, or are something else.
    """
    sources = resolve(definition)
    if sources.file:
        check_contents(WeightsFile(sources.file), definition)
    return Weights(sources, identify(definition, sources))


def identify(definition: CheckpointConfig, sources: Sources) -> str:
    """Return the SHA-256 that names a checkpoint, after making sure that it may bear its name.

    A published digest must fit the definition. A published name must have its published digest; where none is
    published, the one recorded at first use. Weights under a name of the user's own may be anything.

    Raises:
        InputError: says what the weights are, and what was expected.
    """
    total = digest(sources)
    replaced = sources.folders or sources.others
    alone = total if sources.file and not replaced else file_digest(sources.file) if sources.file else None
    known = by_digest(alone, TABLE) if alone else None
    named = published(TABLE).get(definition.name)
    if known:
        _check_known(definition, sources, known, named)
    elif named and named.sha256 and alone:
        raise InputError(
            f"{sources.file}: is not the published {named.name} (its SHA-256 is {alone[:12]}..., "
            f"published is {named.sha256[:12]}...); give weights of your own a name: checkpoint.name=NAME "
            "checkpoint.prediction_type=epsilon|v_prediction"
        )
    elif named:
        remember(definition.name, total, _origin(definition, named))
    if sources.prediction_type not in (None, definition.prediction_type):
        raise InputError(
            f"checkpoint '{definition.name}': the scheduler in {definition.source} says "
            f"{sources.prediction_type}, but checkpoint.prediction_type={definition.prediction_type}"
        )
    return total


def _check_known(
    definition: CheckpointConfig, sources: Sources, known: Published, named: Published | None
) -> None:
    if known.prediction_type and known.prediction_type != definition.prediction_type:
        raise InputError(
            f"{sources.file}: is {known.name}, {known.describes}; checkpoint '{definition.name}' has "
            f"checkpoint.prediction_type={definition.prediction_type}"
        )
    if named and named.name != known.name:
        raise InputError(
            f"{sources.file}: is {known.name}, {known.describes}, not {named.name}; say "
            f"checkpoint.name={known.name}, or get it: python -m sd2eval models fetch {named.name}"
        )


def _origin(definition: CheckpointConfig, named: Published) -> str:
    """Return where weights come from, in the words that `models fetch` records."""
    origin = definition.source + (f"@{definition.revision}" if definition.revision else "")
    return origin if definition.file == named.file else f"{origin} ({definition.file or 'diffusers layout'})"
