"""A check that fails or hangs becomes a warning on its own line."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sd2eval.doctor.findings import WARNING, Finding, Findings, reason


def within(seconds: float, name: str, check: Callable[[], Findings]) -> list[Finding]:
    """Return what a check finds; whatever goes wrong in it is a finding as well.

    A check that takes too long is left behind in a thread of its own, which ends with the process.

    Args:
        seconds: that it may take.
        name: of the check.
        check: makes findings.
    """
    made: list[Finding] = []
    done = threading.Event()

    def run() -> None:
        try:
            for finding in check():
                made.append(finding)
        except Exception as error:  # the doctor must not fall ill itself
            found = f"the check failed: {reason(error)}"
            made.append(Finding(name, WARNING, found, "look at it yourself, or report this line"))
        finally:
            done.set()

    threading.Thread(target=run, name=f"doctor: {name}", daemon=True).start()
    if not done.wait(seconds):
        found = f"the check did not end within {seconds:g} s"
        advice = "a disk or a driver that hangs? a sweep may hang there as well"
        return [*made, Finding(name, WARNING, found, advice)]
    return made
