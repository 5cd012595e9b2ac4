"""The ways a verb ends early: the user's mistake, a stop that can be resumed, an interruption."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

EXIT_DONE = 0
EXIT_UNFINISHED = 1
EXIT_BAD_INPUT = 2
EXIT_RESUMABLE = 75  # EX_TEMPFAIL: run the same command again

GO_ON = "what is finished is kept, run the same command again to continue"
ANEW = "the same command starts from the beginning"

_resumable = False


class InputError(Exception):
    """Something the user gave is wrong; the message says what, where and what to do, in one line."""


class Stopped(Exception):  # noqa: N818 - not an error: nothing went wrong
    """The work stopped before its end and continues when the same command is run again."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write says when the disk, the quota or the allowed size of a file is used up."""


@contextmanager
def room() -> Iterator[None]:
    """Say of a full disk that the work goes on when there is room again.

    Raises:
        Stopped: in place of the OSError of a write for which there was no room.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise Stopped(f"no room on the disk{where}: {error.strerror}; make some") from error


REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What is said where nobody, or not this user, may read or write."""


@contextmanager
def writing() -> Iterator[None]:
    """Say in one line that a run folder has no more room, or may not be written.

    Raises:
        Stopped: see `room`.
        InputError: in place of the OSError of a file or folder that is read-only or somebody else's.
    """
    try:
        with room():
            yield
    except OSError as error:
        if error.errno not in REFUSED or not error.filename:
            raise
        raise InputError(
            f"{error.filename}: cannot be used ({error.strerror}); it must be yours to read and to write"
        ) from error


class Unfinished(Exception):  # noqa: N818 - the rest is done
    """Some of the work was given up after several tries; the rest is finished and kept."""


@contextmanager
def resumable() -> Iterator[None]:
    """Say of an interruption while open that the same command goes on from there.

    Raises:
        Stopped: in place of a KeyboardInterrupt.
    """
    global _resumable
    before, _resumable = _resumable, True
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Stopped(str(stop) or "interrupted") from None
    finally:
        _resumable = before


def is_resumable() -> bool:
    """Return whether something is under way that is kept when it is interrupted now."""
    return _resumable


def outlook() -> str:
    """Return what running the same command again does after an interruption at this moment."""
    return GO_ON if _resumable else ANEW


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn the expected ends of a verb into one line on stderr and an exit code."""
    try:
        yield
    except InputError as error:
        leave(str(error), EXIT_BAD_INPUT)
    except Unfinished as end:
        leave(str(end), EXIT_UNFINISHED)
    except Stopped as stop:
        leave(f"{stop}; {GO_ON}", EXIT_RESUMABLE)
    except KeyboardInterrupt as stop:
        leave(f"{str(stop) or 'interrupted'}; {outlook()}", EXIT_RESUMABLE)


def leave(line: str, code: int) -> NoReturn:
    """Print one line to stderr and exit."""
    print(f"sd2eval: {line}", file=sys.stderr)
    raise SystemExit(code) from None
