"""Are these the weights that their name says? The digest decides, never a file's or a repository's name."""

from __future__ import annotations

from dataclasses import dataclass

from sd2eval.checkpoints.single_file import check_contents
from sd2eval.checkpoints.sources import Sources, digest, resolve
from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError
from sd2eval.transfer.digests import file_digest
from sd2eval.weights.published import TABLE, Published, by_digest, published, remember

OWN_NAME = (
    "give weights of your own a name: checkpoint.name=NAME checkpoint.prediction_type=epsilon|v_prediction"
)


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

    A published digest must fit the definition. A published name stands for the published file and nothing
    else: with its published digest, or, where none is published, with the one recorded at first use. Weights
    under a name of the user's own may be anything.

    Raises:
        InputError: says what the weights are, and what was expected.
    """
    total = digest(sources)
    named = published(TABLE).get(published_name(definition))
    if named:
        _refuse_changed(definition, sources, named)
    plain = sources.file and not sources.folders and not sources.others
    alone = total if plain else file_digest(sources.file) if sources.file else None
    known = by_digest(alone, TABLE) if alone else None
    if known:
        _check_known(definition, sources, known, named)
    elif named and named.sha256 and alone:
        raise InputError(
            f"{sources.file}: is not the published {named.name} (its SHA-256 is {alone[:12]}..., "
            f"published is {named.sha256[:12]}...); {OWN_NAME}"
        )
    elif named:
        remember(named.name, alone or total, _origin(definition, named))
    if sources.prediction_type not in (None, definition.prediction_type):
        raise InputError(
            f"checkpoint '{definition.name}': the scheduler in {definition.source} says "
            f"{sources.prediction_type}, but checkpoint.prediction_type={definition.prediction_type}"
        )
    return total


def published_name(definition: CheckpointConfig) -> str:
    """Return a definition's name without what `noise_levels` added to it."""
    return definition.name.removesuffix(f"-noise{definition.noise_level}")


def _refuse_changed(definition: CheckpointConfig, sources: Sources, named: Published) -> None:
    """A published name with other parts would put its label on something else's curve."""
    changed = [name for name in sources.folders if sources.file and name != "depth_estimator"]
    changed += [name for name in ("lora", "architecture") if name in sources.others]
    if not sources.file:
        changed += [name for name in definition.components if name != "depth_estimator"]
        if definition.source not in (named.repository, named.former_repository):
            raise InputError(
                f"{definition.source}: a folder cannot be recognised as the published {named.name}, which is "
                f"{named.file}; {OWN_NAME}"
            )
    if changed:
        raise InputError(
            f"checkpoint '{definition.name}' is the name of published weights, but "
            f"{', '.join(changed)} would change them; {OWN_NAME}"
        )


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
