"""Claims: files in the run folder that decide who makes which shard."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd2eval.engines.array_task import _preferred
from sd2eval.engines.claims import Claims
from sd2eval.errors import Stopped
from sd2eval.plan import Block
from sd2eval.worker import Task

TASKS = [
    Task(name, Block(first, first + 1), (1.5,)) for name in ("a.b", "a.b-2") for first in range(0, 100, 2)
]


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    made = Claims(tmp_path, "token")
    made.open()
    return made


def test_each_task_goes_to_one_of_many_that_want_it(claims: Claims) -> None:
    got: dict[str, list[Task]] = {}
    start = threading.Barrier(8)

    def work(job: str) -> None:
        start.wait()
        got[job] = [task for task in TASKS if claims.take(task, job)]

    threads = [threading.Thread(target=work, args=(f"7_{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(task for tasks in got.values() for task in tasks) == sorted(TASKS)
    assert all(claims.owner(task) == job for job, tasks in got.items() for task in tasks)


def test_a_task_is_free_until_claimed_made_or_failed_too_often(claims: Claims) -> None:
    claimed, made, failed, twice, left = TASKS[:5]
    claims.take(claimed, "1")
    (claims.path / "shards" / made.checkpoint / made.block.key).mkdir(parents=True)
    claims.take(failed, "1")
    claims.fail(failed, "first")
    for reason in ("first", "second"):
        claims.take(twice, "1")
        claims.fail(twice, reason)
    look = claims.look(TASKS[:5])
    assert look.free(TASKS[:5], tries=2) == [failed, left]
    assert look.made == {made}
    assert look.claimed == {claimed}
    assert [look.failures[task] for task in TASKS[:5]] == [0, 0, 1, 2, 0]
    assert [claims.reason(twice, number) for number in (1, 2)] == ["first", "second"]


def test_only_the_owner_gives_a_task_back(claims: Claims) -> None:
    claims.take(TASKS[0], "7_0")
    claims.give_back(TASKS[0], "7_1")
    assert claims.owner(TASKS[0]) == "7_0"
    claims.give_back(TASKS[0], "7_0")
    assert claims.owner(TASKS[0]) is None
    assert claims.take(TASKS[0], "7_1")


def test_a_claim_that_is_being_written_has_an_unknown_owner(claims: Claims) -> None:
    claims.take(TASKS[0], "7_0")
    (file,) = claims.folder.iterdir()
    file.write_text('{"job"')
    assert claims.owner(TASKS[0]) == ""
    claims.give_back(TASKS[0], "7_0")
    assert file.exists()


def test_a_new_driver_forgets_earlier_claims_and_whoever_holds_one_learns_it(claims: Claims) -> None:
    claims.take(TASKS[0], "7_0")
    new = Claims(claims.path, "another")
    new.open()
    assert new.look(TASKS).free(TASKS, 1) == TASKS
    claims.give_back(TASKS[0], "7_0")
    for late in (
        lambda: claims.take(TASKS[1], "7_0"),
        lambda: claims.fail(TASKS[0], "late"),
        lambda: claims.end("InputError", "late"),
        lambda: claims.look(TASKS),
    ):
        with pytest.raises(Stopped, match="the driver has ended"):
            late()
    assert [folder.name for folder in (claims.path / "claims").iterdir()] == ["another"]


def test_the_end_that_a_worker_reports_is_read_whole(claims: Claims) -> None:
    assert claims.ends() == []
    claims.end("InputError", "weights: wrong")
    assert claims.ends() == [("InputError", "weights: wrong")]


def test_jobs_that_were_told_to_end_are_counted_each(claims: Claims) -> None:
    claims.take(TASKS[0], "7_0")
    assert claims.left() == 0
    claims.leave("7_0")
    claims.leave("7_1")
    assert claims.left() == 2
    assert claims.ends() == []
    assert claims.look(TASKS).free(TASKS, 1) == TASKS[1:]


def test_nothing_is_left_of_claims_into_which_somebody_still_writes(claims: Claims) -> None:
    stop = threading.Event()

    def write() -> None:
        with contextlib.suppress(Stopped):
            while not stop.is_set():
                claims.leave("7_0")

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    claims.close()
    stop.set()
    for writer in writers:
        writer.join()
    assert list(claims.path.iterdir()) == []


@given(st.lists(st.sampled_from(TASKS), min_size=1, unique=True), st.sampled_from(TASKS), st.integers(0, 9))
def test_the_next_task_is_free_and_of_the_loaded_checkpoint_if_there_is_one(
    free: list[Task], last: Task, number: int
) -> None:
    wanted = _preferred(free, last, number)
    assert wanted in free
    if any(task.checkpoint == last.checkpoint for task in free):
        assert wanted.checkpoint == last.checkpoint


def test_tasks_that_start_together_begin_with_different_checkpoints() -> None:
    assert {_preferred(TASKS, None, number).checkpoint for number in (0, 1)} == {"a.b", "a.b-2"}
