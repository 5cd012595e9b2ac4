"""Where sd2eval keeps what many runs share."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return where features and first-use digests are kept: `SD2EVAL_CACHE` or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "sd2eval"
    return Path(os.environ.get("SD2EVAL_CACHE", default)).expanduser()
