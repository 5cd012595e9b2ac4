"""Nothing a test does leaves its temporary folder, reaches a hub or takes more than its share of cores."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Before anything imports torch or huggingface_hub, which read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest

from tests.loopback import Loopback, serving


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SD2EVAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A loopback server, asked directly even where a proxy is set."""
    monkeypatch.setenv("no_proxy", "*")
    with serving() as loopback:
        yield loopback
