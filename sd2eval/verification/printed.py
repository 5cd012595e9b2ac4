"""What a verification found, for people and as JSON."""

from __future__ import annotations

import json
from typing import Any

from sd2eval.verification.findings import State, Verification

MOST = 200
"""Lines of one kind that are shown; JSON has them all."""
HEADS: dict[State, str] = {
    "damaged": "Damaged or missing:",
    "unfinished": "Not finished:",
    "left over": "Left over, and harmless:",
}


def show(found: Verification) -> None:
    """Print the answer in one sentence, then one line for each finding."""
    print(found.summary)
    for head, lines in _parts(found).items():
        if lines:
            print(f"\n{head}")
        for line in lines[:MOST]:
            print(f"- {line}")
        if len(lines) > MOST:
            print(f"- and {len(lines) - MOST:,} more; json=true lists all")
    if not found.whole and not found.repaired:
        print(f"\n`python -m sd2eval verify {found.path} --repair` makes just that again.")


def _parts(found: Verification) -> dict[str, list[str]]:
    parts = {head: [finding.line for finding in found.of(state)] for state, head in HEADS.items()}
    return {"Repaired:": list(found.repaired)} | parts | {"Not checked:": list(found.unchecked)}


def as_json(found: Verification) -> str:
    """Return everything as JSON."""
    data: dict[str, Any] = {
        "run": str(found.path),
        "summary": found.summary,
        "whole": found.whole,
        "finished": not found.of("unfinished"),
        "shards": found.shards,
        "images": found.images,
        "pngs": found.pngs,
    }
    for state in HEADS:
        data[state.replace(" ", "_")] = [
            {"path": finding.path, "what": finding.what} for finding in found.of(state)
        ]
    return json.dumps(
        data | {"not_checked": list(found.unchecked), "repaired": list(found.repaired)}, indent=1
    )
