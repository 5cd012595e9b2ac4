"""Which file system a folder is on, and what is said of one without file locks."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")


def mount(folder: Path) -> tuple[str, set[str]]:
    """Return the kind of file system that a folder is on, and how it is mounted."""
    resolved, found = folder.resolve(), ("the file system", set[str]())
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return found
    length = -1
    for line in lines:
        _, point, kind, options, *_ = line.split(" ")
        path = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), point))
        if (path == resolved or path in resolved.parents) and len(path.parts) >= length:
            length, found = len(path.parts), (kind, set(options.split(",")))
    return found


def no_locks(kind: str, folder: Path, error: OSError) -> tuple[str, str]:
    """Return that a folder's file system takes no locks, with its reason, and what to do."""
    found = f"{kind} at {folder} has no file locks ({error.strerror or error})"
    return found, "use another disk, or mount this one with flock"
