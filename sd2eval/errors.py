"""The two ways a verb ends early: the user's mistake, and a stop that can be resumed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_RESUMABLE = 75  # EX_TEMPFAIL: run the same command again


class InputError(Exception):
    """Something the user gave is wrong; the message says what, where and what to do, in one line."""


class Stopped(Exception):  # noqa: N818 - not an error: nothing went wrong
    """The work stopped before its end and continues when the same command is run again."""


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn the two expected ends of a verb into one line on stderr and an exit code."""
    try:
        yield
    except InputError as error:
        leave(str(error), EXIT_BAD_INPUT)
    except Stopped as stop:
        leave(f"{stop}; what is finished is kept, run the same command again to continue", EXIT_RESUMABLE)
    except KeyboardInterrupt:
        leave("interrupted; what is finished is kept, run the same command again to continue", EXIT_RESUMABLE)


def leave(line: str, code: int) -> NoReturn:
    """Print one line to stderr and exit."""
    print(f"sd2eval: {line}", file=sys.stderr)
    raise SystemExit(code) from None
