"""Imports point down only: a module may import from the rows below its own, and from its own package."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Top to bottom. A package stands for its modules; a module named beside its package has a row of its own.
LAYERS = """
runners
price_table
doctor
price selfcheck comparison reproduction matrix verification probes
sweep
engines
report weights.table
worker run_tables
shard_arrays
session
paired front
identity evaluate tentative plots tables shard mini coco
floors
reference networks
extractors
weights.models
weights.inventory
sampler fixture dataset answers pareto plot_labels coco_check
precision checkpoints energy progress prompts images store devices plot_curves mini.classifier
weights.hub
weights.hub_errors device_faults
footprint lock memory plan provenance interrupt masks noise sheet weights.published reproduction.card
transfer
config
metrics
statistics stopping weights.first_use words plugins
records
seals errors events cache streams terminal mounts weights
"""
ROW = {name: row for row, names in enumerate(LAYERS.split("\n")) for name in names.split()}
OUTSIDE = ("__init__", "__main__")  # they import lazily, or by name
CONFIG_LIBRARIES = ("hydra", "omegaconf")


def modules(root: Path) -> dict[str, Path]:
    """Every module by its dotted name below sd2eval."""
    files = {file: file.relative_to(root / "sd2eval") for file in (root / "sd2eval").rglob("*.py")}
    files |= {file: file.relative_to(root) for file in (root / "runners").rglob("*.py")}
    return {".".join(path.with_suffix("").parts): file for file, path in files.items()}


def imported(file: Path) -> Iterator[str]:
    """Yield every module or attribute that a file imports anywhere, lazily or not."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative imports hide the layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(name: str) -> tuple[str, int] | None:
    """Return the package and the row of a dotted name, or None for what lies outside the rows."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:length])) in ROW:
            return parts[0], ROW[prefix]
    return None


def violations(root: Path) -> list[str]:
    found = []
    for name, file in modules(root).items():
        if name in OUTSIDE:
            continue
        here = place(name)
        if here is None:
            found.append(f"{name} has no row in LAYERS")
            continue
        for target in imported(file):
            if target.split(".")[0] in CONFIG_LIBRARIES and here[0] not in ("config", "runners"):
                found.append(f"{name} imports {target}: only config and runners know Hydra")
            there = place(target.removeprefix("sd2eval.")) if target.startswith("sd2eval.") else None
            if there and there[0] != here[0] and there[1] <= here[1]:
                found.append(f"{name} imports {target}: not below it")
            if target.startswith(("runners", "sd2eval.runners")) and here[0] != "runners":
                found.append(f"{name} imports {target}: only __main__ finds runners, by name")
    return found


def test_imports_point_down_only() -> None:
    assert violations(ROOT) == []


def test_every_row_names_modules_that_exist() -> None:
    known = set(modules(ROOT)) | {name.rpartition(".")[0] for name in modules(ROOT)}
    assert set(ROW) <= known


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("sd2eval/store.py", "from sd2eval.sweep import sweep"),
        ("sd2eval/records.py", "import sd2eval.plan"),
        ("sd2eval/metrics/kernel.py", "from sd2eval import report"),
        ("sd2eval/tables.py", "def f():\n    from sd2eval.plots import save"),
        ("sd2eval/evaluate.py", "from omegaconf import OmegaConf"),
        ("sd2eval/sweep.py", "from sd2eval.runners import sweep"),
        ("sd2eval/plan.py", "import runners.sweep"),
    ],
)
def test_a_planted_upward_import_is_found(tmp_path: Path, file: str, line: str) -> None:
    skip = shutil.ignore_patterns("weights", "data", "__pycache__")
    for folder in ("sd2eval", "runners"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skip)
    with (tmp_path / file).open("a") as stream:
        stream.write(f"\n\n{line}\n")
    (violation, *_) = violations(tmp_path)
    assert violation.startswith(".".join(Path(file).with_suffix("").parts[1:]))


HEAVY = ("torch", "diffusers", "transformers", "open_clip", "torchvision", "scipy", "codecarbon")


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after running code."""
    tail = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code + tail]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


def test_a_finished_run_is_read_without_torch() -> None:
    code = "import sd2eval.report, sd2eval.evaluate, sd2eval.tables, sd2eval.plots, sd2eval.energy"
    assert loaded_by(code).isdisjoint(HEAVY)


@pytest.mark.parametrize("words", [[], ["--help"], ["report", "--help"]])
def test_the_list_of_verbs_needs_the_standard_library_only(words: list[str]) -> None:
    loaded = loaded_by(f"from sd2eval.__main__ import main; main({words})")
    assert loaded.isdisjoint({*HEAVY, "numpy", "pandas", "matplotlib", "rich", *CONFIG_LIBRARIES})


def test_help_of_a_verb_does_not_load_torch() -> None:
    code = "from sd2eval.__main__ import main\ntry: main(['sweep', '--help'])\nexcept SystemExit: pass\nTrue"
    assert loaded_by(code).isdisjoint({*HEAVY, "pandas", "matplotlib"})
