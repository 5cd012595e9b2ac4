"""The undisturbed runs that all engines are compared with, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

import sd2eval
from sd2eval.mini import DATA
from tests.engines.commands import SMALL, Result, result
from tests.engines.contract import AUTO, HERE


def _alone(out: Path, *words: str) -> Result:
    sd2eval.run_sweep(*SMALL, f"data.root={DATA}", *words, *HERE, "progress=false", f"out={out}")
    return result(out)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return _alone(tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture(scope="session")
def undisturbed_auto(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return _alone(tmp_path_factory.mktemp("auto") / "run", *AUTO)
