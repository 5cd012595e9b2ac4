"""The two ways a verb ends early: the user's mistake, and a stop that can be resumed."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_RESUMABLE = 75  # EX_TEMPFAIL: run the same command again


class InputError(Exception):
    """Something the user gave is wrong; the message says what, where and what to do, in one line."""


class Stopped(Exception):  # noqa: N818 - not an error: nothing went wrong
    """The run stopped before its end and continues when the same command is run again."""
