"""The log: whole lines whoever writes, nothing lost unsaid, and no part of what a run is."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import sd2eval
from sd2eval.errors import Stopped
from sd2eval.events import FILE, EventLog, read
from sd2eval.run_tables import Run
from sd2eval.store import RunFolder
from sd2eval.verification.verify import verify_run

SMALL = ("experiment=smoke", "checkpoints=[512-base]", "shard_size=4", "progress=false")
LINES = 300


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sd2eval.run_sweep(*SMALL, f"out={tmp_path_factory.mktemp('done') / 'run'}")


def names(run: Path) -> list[str]:
    return [record["event"] for record in read(run)[0]]


def _write(path: Path, name: str) -> None:
    log = EventLog(path / FILE, name)
    for number in range(LINES):
        log.write("counted", number=number, text="x" * (number % 97) * 20)
    assert log.lost == 0


def test_lines_of_several_processes_stay_whole_and_in_order(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    found, torn = read(tmp_path)
    assert torn == 0
    for name in "abc":
        assert [line["number"] for line in found if line["session"] == name] == list(range(LINES))


def test_an_event_says_when_and_who(tmp_path: Path) -> None:
    before = time.monotonic()
    EventLog(tmp_path / FILE, "mine").write("seen", shard="a/0", path=tmp_path)
    ((event,), _) = read(tmp_path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["time"])
    assert before - 0.001 <= event["monotonic"] <= time.monotonic()
    assert (event["session"], event["pid"], event["shard"]) == ("mine", os.getpid(), "a/0")
    assert event["path"] == str(tmp_path)


def test_a_line_that_was_cut_is_counted_and_the_next_one_is_whole(tmp_path: Path) -> None:
    EventLog(tmp_path / FILE, "a").write("first")
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes() + b'{"event": "cu')
    EventLog(tmp_path / FILE, "b").write("second")
    found, torn = read(tmp_path)
    assert [event["event"] for event in found] == ["first", "second"]
    assert torn == 1


def test_what_a_full_disk_does_not_take_is_counted_and_said_once(tmp_path: Path) -> None:
    reasons: list[str] = []
    (tmp_path / FILE).symlink_to("/dev/full")
    log = EventLog(tmp_path / FILE, "a", reasons.append)
    log.write("one")
    log.write("two")
    assert (log.lost, reasons) == (2, ["No space left on device"])
    (tmp_path / FILE).unlink()
    log.write("three")
    ((event,), _) = read(tmp_path)
    assert (event["event"], event["lost_before"]) == ("three", 2)


def test_a_log_that_cannot_be_written_does_not_end_a_sweep_and_the_report_says_so(
    done: Run, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).symlink_to("/dev/full")
    run = sd2eval.run_sweep(*SMALL, f"out={tmp_path / 'run'}")
    assert (run.path / "results.csv").read_bytes() == (done.path / "results.csv").read_bytes()
    (session,) = RunFolder(run.path).read_sessions()
    assert re.fullmatch(rf"\d+ events are not in {FILE}", session["notes"][-1])


def test_a_sweep_logs_what_it_did(done: Run) -> None:
    found = read(done.path)[0]
    counts = Counter(event["event"] for event in found)
    assert found[0]["event"] == "run_begun"
    assert found[-1]["event"] == "run_finished"
    assert counts["checkpoint_loaded"] == counts["weights_ready"] == 1
    shards = ["512-base/000000-000003", "512-base/000004-000007"]
    assert [event["shard"] for event in found if event["event"] == "shard_published"] == shards
    assert counts["shard_begun"] == 2
    times = [event["monotonic"] for event in found]
    assert times == sorted(times)


def test_a_stop_and_the_way_on_are_logged(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def stop() -> None:
        while not list(out.glob("shards/*/0*")):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=stop)
    killer.start()
    with pytest.raises(Stopped):
        sd2eval.run_sweep(*SMALL, "shard_size=1", f"out={out}")
    killer.join()
    sd2eval.run_sweep(*SMALL, f"out={out}")
    found = read(out)[0]
    (stopped,) = [event for event in found if event["event"] == "run_stopped"]
    (signalled,) = [event for event in found if event["event"] == "signal"]
    assert stopped["reason"] == "stopped by SIGTERM"
    assert signalled["signal"] == "SIGTERM"
    assert names(out).index("run_stopped") < names(out).index("run_resumed")
    assert names(out)[-1] == "run_finished"


def test_the_log_is_no_part_of_what_a_run_is(done: Run, tmp_path: Path) -> None:
    assert FILE not in (done.path / "digests.json").read_text()
    assert FILE not in (done.path / "report.json").read_text()
    before = (done.path / FILE).read_bytes()
    try:
        (done.path / FILE).unlink()
        assert verify_run(done.path).findings == []
        (done.path / FILE).write_bytes(before[:-20])
        found = verify_run(done.path)
        assert found.whole
        ((path, state),) = [(finding.path, finding.state) for finding in found.findings]
        assert (path, state) == (FILE, "left over")
    finally:
        (done.path / FILE).write_bytes(before)


def test_lines_are_json_objects_without_line_breaks(done: Run) -> None:
    for line in (done.path / FILE).read_text().splitlines():
        assert {"time", "monotonic", "session", "host", "pid", "event"} <= json.loads(line).keys()
