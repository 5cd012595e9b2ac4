"""Distributions that a test installs: really, or as the two files that the interpreter looks for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from sd2eval import plugins
from sd2eval.metrics import METRICS

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "tests" / "plugin_example"


def install(source: Path, target: Path) -> Path:
    """Install a distribution with pip into a folder, and return it; builds in a copy, asks no network."""
    copy = shutil.copytree(source, target.parent / f"{target.name}-source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command = [*pip, "--no-build-isolation", "--target", str(target), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return target


def declare(site: Path, files: Mapping[str, str], entries: Mapping[str, str]) -> Path:
    """Write modules and the metadata of a distribution `faulty` 1.0, as an installer leaves them.

    Args:
        site: the folder.
        files: text by path.
        entries: module by entry point, such as `{"sd2eval.metrics/mine": "mine"}`.
    """
    lines = [
        f"[{group}]\n{name} = {module}"
        for (group, _, name), module in ((k.rpartition("/"), v) for k, v in entries.items())
    ]
    metadata = {
        "faulty-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n",
        "faulty-1.0.dist-info/entry_points.txt": "\n\n".join(lines),
    }
    for name, text in {**files, **metadata}.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    return site


@contextmanager
def found_here(site: Path) -> Iterator[None]:
    """Let this process find what is installed in a folder, as if it had been there at the start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        _forget()
        try:
            yield
        finally:
            _forget()
            for name, module in list(sys.modules.items()):
                if str(getattr(module, "__file__", "")).startswith(f"{site}{os.sep}"):
                    del sys.modules[name]


def _forget() -> None:
    for name in ("extractor_kinds", "metric_modules", "conf_packages", "_origins"):
        getattr(plugins, name).cache_clear()
    METRICS.__dict__.pop("_found", None)


def python(*arguments: str, site: Path | None, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run an interpreter that finds this checkout and what is installed in `site`."""
    path = os.pathsep.join(map(str, [site, ROOT] if site else [ROOT]))
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "100"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def verb(*words: str, site: Path | None, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a verb of the command line."""
    return python("-m", "sd2eval", *words, site=site, cwd=cwd)
