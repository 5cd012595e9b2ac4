"""The page about protocols says what the presets choose."""

from __future__ import annotations

from pathlib import Path

from sd2eval.config import ExtractorConfig
from sd2eval.matrix.presets import distance_metric, preset, preset_names

PAGE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
CHOICES = ("resolution", "fit", "resize", "quantize", "reference_jpeg", "sample_at")


def network(config: ExtractorConfig) -> str:
    """Return kind, preprocessing and precision of a network, as the table has them."""
    parts = [config.model or config.kind, config.preprocess or "", config.dtype]
    return ", ".join(part for part in parts if part)


def table() -> str:
    """Return all choices side by side, a row for each preset."""
    heads = ("preset", "distance", *CHOICES, "network of the distance", "network of the score")
    rows = [heads, tuple("---" for _ in heads)]
    for name in preset_names():
        protocol = preset(name).protocol
        metric = distance_metric(protocol)
        assert metric is not None
        values = ("none" if (value := getattr(protocol, key)) is None else str(value) for key in CHOICES)
        rows.append((f"`{name}`", metric.name, *values, network(protocol.distance), network(protocol.score)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def test_the_table_has_every_choice_of_every_preset() -> None:
    assert table() in PAGE, f"docs/protocols.md needs this table:\n{table()}"


def test_every_preset_is_said_to_stand_for_something() -> None:
    for name in preset_names():
        assert f"\n- **`{name}`**" in PAGE
