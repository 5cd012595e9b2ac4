"""A small world for the verb `models`: a loopback hub, a table of small files, empty caches."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

from sd2eval.errors import InputError
from sd2eval.weights import hub, models
from sd2eval.weights.inventory import holding
from sd2eval.weights.published import Published, published
from tests.hub_server import Hub, connect, serve

ROOT = Path(__file__).parents[1]
CONTENTS = {name: random.Random(name).randbytes(200_000) for name in ("first", "second", "unpublished")}


@dataclass
class World:
    """A hub, a table that describes it, and a machine with empty caches."""

    server: Hub
    table: Path
    home: Path
    said: list[str] = field(default_factory=list)

    def fetch(self, *names: str) -> str:
        """Fetch in this process and return what was said."""
        self.said.clear()
        models.fetch_models(names, self.table, progress=False, say=self.said.append)
        return "\n".join(self.said)

    def refusal(self, *names: str) -> str:
        """Fetch what cannot be had and return the line that says why."""
        with pytest.raises(InputError) as caught:
            self.fetch(*names)
        return str(caught.value)

    def verify(self, *names: str) -> tuple[bool, str]:
        """Verify in this process and return the judgement and what was said."""
        self.said.clear()
        right = models.verify_models(names, self.table, progress=False, say=self.said.append)
        return right, "\n".join(self.said)

    def state(self, name: str) -> str:
        return holding(published(self.table)[name]).state

    def child(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        """Start `python -m sd2eval models ...` with the environment that a user sets."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
        }
        environment |= {"HF_ENDPOINT": self.server.endpoint, "HF_HOME": str(self.home)} | settings
        return subprocess.Popen(
            [sys.executable, "-m", "sd2eval", "models", *words, f"table={self.table}"],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def write_table(file: Path, *rows: dict[str, str]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Published)], restval="")
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def a_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Serve a hub, write its table, and give this process empty caches."""
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(hub, "PAUSES", (0.01,))
    with serve() as server:
        connect(server, tmp_path / "home" / "hub", monkeypatch)
        digests = {name: server.put(f"owner/{name}", f"{name}.ckpt", CONTENTS[name]) for name in CONTENTS}
        here = server.put("owner/address", "net.pth", b"weights of a network")
        rows = [
            {
                "name": name,
                "describes": f"the {name} weights",
                "file": f"{name}.ckpt",
                "repository": f"owner/{name}",
                "sha256": digests[name] if name != "unpublished" else "",
                "study": "" if name == "second" else "model_card",
                "use": f"checkpoint={name} checkpoint.source={{path}}",
                "about_bytes": "200000",
            }
            for name in CONTENTS
        ]
        address = {"name": "address", "describes": "a network", "file": "net.pth", "sha256": here}
        rows.append(address | {"url": f"{server.endpoint}/lfs/{here}"})
        write_table(tmp_path / "table.csv", *({"kind": "checkpoint"} | row for row in rows))
        yield World(server, tmp_path / "table.csv", tmp_path / "home")
