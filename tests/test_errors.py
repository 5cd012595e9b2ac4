"""The ways a verb ends early have one line and an exit code each; a bug has neither."""

from __future__ import annotations

import pytest

from sd2eval.errors import InputError, Stopped, exit_codes, outlook, resumable

GO_ON = "what is finished is kept, run the same command again to continue"
ANEW = "the same command starts from the beginning"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("x=1: must be 2"), 2, "sd2eval: x=1: must be 2"),
        (Stopped("the server gave up"), 75, f"sd2eval: the server gave up; {GO_ON}"),
        (KeyboardInterrupt(), 75, f"sd2eval: interrupted; {ANEW}"),
        (KeyboardInterrupt("stopped by SIGTERM"), 75, f"sd2eval: stopped by SIGTERM; {ANEW}"),
    ],
)
def test_an_expected_end_is_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, exit_codes():
        raise error
    assert ended.value.code == code
    assert capsys.readouterr() == ("", f"{line}\n")


def test_a_bug_passes() -> None:
    with pytest.raises(ZeroDivisionError), exit_codes():
        raise ZeroDivisionError


def test_only_what_is_resumable_promises_to_continue(capsys: pytest.CaptureFixture[str]) -> None:
    with resumable():
        assert outlook() == GO_ON
    with pytest.raises(SystemExit) as ended, exit_codes(), resumable():
        raise KeyboardInterrupt("stopped by SIGINT")
    assert ended.value.code == 75
    assert capsys.readouterr().err == f"sd2eval: stopped by SIGINT; {GO_ON}\n"
    assert outlook() == ANEW
