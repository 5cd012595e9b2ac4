"""What every engine keeps: a test class; an engine's own test module derives one and gives its words.

    from tests.engines.contract import Contract

    class TestRay(Contract):
        words = ("engine=ray", "engine.workers=2")
        worker = r"^ray::"

Each test starts real processes on a copy of the mini data set and disturbs them from outside. The fixtures
are in the conftest.py beside this file.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

import sd2eval.mini
from sd2eval.mini import DATA
from sd2eval.store import RunFolder
from tests.engines.commands import LAST, SMALL, Command, Result, published, reading, result

HERE = ("engine=local", "engine.workers=1")
AUTO = ("prompts.n=auto", "prompts.first=16", "prompts.most=24", "precision.clip_mini=0.06", "shard_size=8")


class Contract:
    """The suite of one engine."""

    words: ClassVar[tuple[str, ...]]
    """What names the engine on the command line, with two workers."""
    worker: ClassVar[str]
    """Regular expression that finds the workers among the command lines of the engine's processes."""
    fewest: ClassVar[tuple[str, ...]] = ()
    """Makes it one worker, for tests in which it need not be two, where that is not the driver itself."""
    seconds: ClassVar[float] = 20.0
    """How long its processes may take to end when they must."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        return Path(shutil.copytree(DATA, tmp_path / "data"))

    def command(self, data: Path, *words: str, out: str = "run") -> Command:
        return Command(data.parent / out, (*SMALL, f"data.root={data}", *words), self.worker)

    def finish(self, data: Path, *words: str) -> Result:
        """Run a command to its good end."""
        with self.command(data, *words) as command:
            assert command.ends() == 0, command.log
            assert "Traceback" not in command.log
        return result(data.parent / "run")

    def test_results_and_images_are_those_of_one_process_and_a_second_driver_is_refused(
        self, undisturbed: Result, data: Path
    ) -> None:
        with self.command(data, *self.words) as command:
            command.until_working("shards/*/0*")
            with frozen(command.workers()), self.command(data, *self.words) as second:
                assert second.ends() == 2, second.log
                *_, line = second.log.splitlines()
                second.all_end(self.seconds)
            assert "a sweep is writing here" in line
            assert f"process {command.process.pid}" in line
            assert command.ends() == 0, command.log
            assert "Traceback" not in command.log
            command.all_end(self.seconds)
        assert result(data.parent / "run") == undisturbed

    def test_the_shard_of_a_killed_worker_goes_to_another(self, undisturbed: Result, data: Path) -> None:
        with self.command(data, *self.words) as command:
            command.until_working("reference.npz")
            with reading(command, last_image(data)) as worker:
                worker.kill()
                assert command.ends() == 0, command.log
            lines = [line for line in command.log.splitlines() if LAST in line]
        assert result(data.parent / "run") == undisturbed
        assert len(lines) == 1
        assert "worker" in lines[0]

    def test_after_ctrl_c_at_work_another_engine_goes_on(self, undisturbed: Result, data: Path) -> None:
        out = data.parent / "run"
        with self.command(data, *self.words) as command:
            command.until_working("shards/*/0*")
            self.interrupt(command)
        kept = published(out)
        assert 0 < len(kept) < 12
        assert self.finish(data, *HERE) == undisturbed
        assert kept.items() <= published(out).items()

    def test_ctrl_c_at_the_start_ends_everything_within_seconds(self, data: Path) -> None:
        with self.command(data, *self.words, *self.fewest) as command:
            command.until_working("reference.npz")
            self.interrupt(command)
        assert not published(data.parent / "run")

    def interrupt(self, command: Command) -> None:
        """Do what a terminal does at Ctrl-C, and see everything end in one line."""
        command.signal_group(signal.SIGINT)
        assert command.ends(self.seconds) == 75, command.log
        command.all_end(self.seconds)
        *_, line = command.log.splitlines()
        assert line.startswith("sd2eval: stopped by SIGINT; ")
        assert "Traceback" not in command.log
        assert "KeyboardInterrupt" not in command.log

    def test_after_the_driver_was_killed_others_go_on_and_its_workers_publish_nothing(
        self, undisturbed: Result, data: Path
    ) -> None:
        """Killed twice: with workers that are stuck and wake up under another driver, and with busy ones."""
        out = data.parent / "run"
        with self.command(data, *self.words) as command:
            command.until_working("shards/*/0*")
            with frozen(command.workers()):
                command.process.kill()
                before = published(out)
                with self.command(data, *HERE) as other:
                    other.until(lambda: len(published(out)) > len(before))
                    other.signal_group(signal.SIGINT)
                    assert other.ends() == 75, other.log
                kept = published(out)
            command.all_end(self.seconds)
            assert published(out) == kept
        assert len(kept) < 12
        with self.command(data, *self.words) as command:
            command.until(lambda: len(published(out)) > len(kept) or command.process.poll() is not None)
            command.process.kill()
            command.all_end(self.seconds)
        assert kept.items() < published(out).items()
        assert self.finish(data, *HERE) == undisturbed

    def test_a_shard_that_fails_in_every_worker_is_given_up_and_the_others_finish(
        self, undisturbed: Result, data: Path
    ) -> None:
        out = data.parent / "run"
        with self.command(data, *self.words, *self.fewest, "engine.tries=2") as command:
            command.until_working("reference.npz")
            image = last_image(data)
            whole = image.read_bytes()
            image.write_bytes(b"damaged")
            assert command.ends() == 1, command.log
            *_, line = command.log.splitlines()
        assert line.startswith("sd2eval: 1 shard was given up")
        assert "Traceback" not in command.log
        (record,) = out.glob("failed/*.json")
        failure = json.loads(record.read_text())
        assert f"{failure['checkpoint']}/{failure['captions'][0]:06d}-{failure['captions'][1]:06d}" == LAST
        assert failure["attempts"] == 2
        assert image.name in failure["reason"]
        assert len(published(out)) == 11
        measured = (out / "results.csv").read_text()
        assert "512-base" in measured
        assert "x4-upscaling" not in measured
        image.write_bytes(whole)
        assert self.finish(data, *HERE) == undisturbed

    def test_cells_of_a_run_that_stops_by_itself_stop_at_the_same_number(
        self, undisturbed_auto: Result, data: Path
    ) -> None:
        assert self.finish(data, *AUTO, *self.words, *self.fewest) == undisturbed_auto

    def test_a_worker_with_other_weights_than_its_driver_is_refused(self, data: Path) -> None:
        weights = data.parent / "weights"
        for part in ("score_clip", "tokenizer"):
            shutil.copytree(Path(sd2eval.mini.__file__).parent / "weights" / part, weights / part)
        source = weights / "score_clip"
        words = (*self.words, *self.fewest, f"protocol.score.source={source}")
        with self.command(data, *words) as command:
            command.until_working("run.json")
            other_weights(source / "open_clip_model.safetensors")
            assert command.ends() == 2, command.log
            command.all_end(self.seconds)
        errors = [line for line in command.log.splitlines() if line.startswith("sd2eval: ")]
        assert len(errors) == 1
        assert "other weights than its driver" in errors[0]
        assert not published(data.parent / "run")
        RunFolder(data.parent / "run").refuse_foreign()  # what is left there is in nobody's way


def last_image(data: Path) -> Path:
    """Return the image of the last caption of a run that has begun; no other caption of it has the same."""
    prompts = json.loads((data.parent / "run" / "prompts.json").read_text())
    names = [prompt["image_file"] for prompt in prompts]
    assert names.count(names[-1]) == 1
    return data / "images" / str(names[-1])


def other_weights(file: Path) -> None:
    """Replace a network's file by another whole one."""
    from safetensors.torch import load_file, save_file

    state = load_file(file)
    name = next(name for name, tensor in state.items() if tensor.is_floating_point() and tensor.ndim > 1)
    state[name] = state[name] * 1.5
    save_file(state, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)


class frozen:  # noqa: N801 - reads as a verb: `with frozen(...)`
    """Hold processes still, wherever they are."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        assert processes
        self._processes = processes

    def __enter__(self) -> None:
        for process in self._processes:
            os.kill(process.pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.is_running():
                os.kill(process.pid, signal.SIGCONT)
