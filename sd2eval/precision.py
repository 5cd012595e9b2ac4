"""When a cell is finished: after a fixed number of captions, or when it is precise (`prompts.n=auto`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from sd2eval.errors import InputError
from sd2eval.metrics import Metric, applicable
from sd2eval.stopping import AUTO, enough, expected_n, looks

if TYPE_CHECKING:  # a finished run is read without the library of settings
    from sd2eval.config import CheckpointConfig, SweepConfig


@dataclass(frozen=True)
class Finish:
    """At which numbers of captions a cell may be finished, and what it must have reached there."""

    schedule: Sequence[int]
    """Ascending; at the last a cell is finished whatever it has reached."""
    targets: Mapping[str, float]
    """The standard error asked of each metric; empty for a fixed number."""

    @classmethod
    def of(cls, config: Mapping[str, Any], prompts: int, metrics: Iterable[Metric]) -> Self:
        """Return the rule of a checkpoint.

        Args:
            config: of the run, as in `run.json`.
            prompts: captions that may be used, all that `prompts.json` has.
            metrics: the checkpoint's; what is asked of others does not concern it.
        """
        if config["prompts"]["n"] != AUTO:
            return cls([prompts], {})
        names = {metric.name for metric in metrics}
        targets = {name: target for name, target in config["precision"].items() if name in names}
        return cls(looks(config["prompts"]["first"], prompts), targets)

    def reached(self, n: int, stderr: Mapping[str, float]) -> bool:
        """Say whether a cell of n captions is finished.

        Args:
            n: captions drawn.
            stderr: the standard error of each metric there.
        """
        if n == self.schedule[-1]:
            return True
        return n in self.schedule and bool(self.targets) and enough(stderr, self.targets)

    def outlook(self, name: str, n: int, going: Mapping[float, Mapping[str, float]]) -> str:
        """Return in one line how far a checkpoint is after n captions.

        Args:
            name: the checkpoint's.
            n: a look.
            going: the standard errors of each guidance scale that goes on.
        """
        expected = [expected_n(stderr, n, self.targets) for stderr in going.values()]
        known = [count for count in expected if count is not None]
        most = self.schedule[-1]
        about = ""
        if known:
            about = f", about {max(known):,}" if max(known) <= most else f", more than the {most:,} there are"
        scales = ", ".join(f"{scale:g}" for scale in going)
        which = f"scales {scales} need" if len(going) > 1 else f"scale {scales} needs"
        return f"{name}: after {n:,} captions {which} more{about}"


def require(config: SweepConfig, definitions: Sequence[CheckpointConfig]) -> None:
    """Refuse a checkpoint of which nothing says when it is precise enough.

    Raises:
        InputError: none of the metrics with a `precision` applies to it.
    """
    for definition in definitions if config.prompts.auto else ():
        own = {metric.name for metric in applicable(config.protocol.metrics, asdict(definition))}
        if not own & config.precision.keys():
            asked = ", ".join(config.precision)
            raise InputError(
                f"precision: {definition.name} has no {asked}; give one of {', '.join(sorted(own))}"
            )
