"""The verb: what it prints, how it ends, and that no check can bring it down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sd2eval.config import from_overrides
from sd2eval.doctor import lines
from sd2eval.doctor.examine import run_doctor
from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Diagnosis, Finding
from sd2eval.doctor.limits import within
from sd2eval.doctor.plan import composed, recorded
from sd2eval.errors import InputError
from sd2eval.plan import Block
from sd2eval.records import SCHEMA_VERSION, RunInfo
from sd2eval.store import RunFolder

ROOT = Path(__file__).parents[2]
CHECKS = (
    "python packages torch torchvision devices libraries cpu limits terminal clock data weights networks hub"
)
PLANS = "engine memory disk run_folder file_locks caches energy"


def verb(*words: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | settings
    command = [sys.executable, "-m", "sd2eval", "doctor", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_a_good_machine_is_healthy_for_the_mini_study_and_json_says_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sd2eval.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert main(["doctor", "json=true", "out=run"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    found: dict[str, Any] = json.loads(said.out)
    assert list(found) == ["schema_version", "healthy", "problems", "warnings", "plan", "findings"]
    assert (found["healthy"], found["problems"]) == (True, 0)
    assert found["plan"].startswith("2,560 images: 512-base, 768-v")
    assert {tuple(finding) for finding in found["findings"]} == {
        ("check", "level", "found", "advice", "about")
    }
    names = [finding["check"] for finding in found["findings"]]
    assert list(dict.fromkeys(names)) == f"{CHECKS} {PLANS}".split()
    levels = {finding["check"]: finding["level"] for finding in found["findings"]}
    assert {name for name, level in levels.items() if level != OK} <= {"packages", "energy", "cpu", "clock"}
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of modules with a torch that cannot be imported."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')\n")
    return site


def test_with_a_broken_torch_all_else_is_still_looked_at(broken: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").touch()
    done = verb(f"out={foreign}", cwd=tmp_path, PYTHONPATH=f"{broken}{os.pathsep}{ROOT}")
    assert (done.returncode, done.stderr) == (1, "")
    found = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    level = {words[1]: words[0] for words in found}
    assert (level["torch"], level["run_folder"], level["disk"]) == (PROBLEM, PROBLEM, OK)
    assert "libcudart.so.13" in done.stdout
    assert "holds chapter.tex but no run" in done.stdout
    for check in ("libraries", "weights", "hub", "data"):
        assert (level[check], "not checked" in done.stdout) == (WARNING, True)
    assert "2 problems" in found[-1][0] + " " + " ".join(found[-1][1:])
    assert [file.name for file in foreign.iterdir()] == ["chapter.tex"]


def test_a_verb_that_cannot_even_read_settings_says_so(tmp_path: Path) -> None:
    (tmp_path / "hydra.py").write_text("raise ImportError('no hydra today')\n")
    (tmp_path / "torch.py").write_text("raise ImportError('no torch either')\n")
    done = verb(cwd=tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert (done.returncode, done.stderr) == (1, "")
    assert "no hydra today" in done.stdout
    assert "no torch either" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--fast", "'--fast': usage"),
        (". .", "usage"),
        ("nowhere", "nowhere: no such folder"),
        (". out=x", "either"),
        ("json=maybe", "true or false"),
        ("prompts.n=abc", "a whole number"),
        ("guidance_scale=[3]", "did you mean 'guidance_scales'"),
        ("experiment=none_such", "model_card"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_two(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sd2eval.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *words.split()])
    said = capsys.readouterr()
    assert (stop.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert says in said.err


def test_help_imports_nothing_but_the_standard_library() -> None:
    code = "from sd2eval.__main__ import main; main(['doctor', '--help']); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "numpy", "hydra", "rich"}.isdisjoint(done.stdout.splitlines()[-1].split())


def test_a_check_that_fails_is_a_warning_of_its_own() -> None:
    def check() -> Iterator[Finding]:
        yield Finding("disk", OK, "the first")
        raise RuntimeError("two\nlines")

    first, second = within(5, "disk", check)
    assert first.found == "the first"
    assert (second.check, second.level) == ("disk", WARNING)
    assert second.found == "the check failed: RuntimeError: two lines"


def test_a_check_that_hangs_is_left_behind() -> None:
    def check() -> Iterator[Finding]:
        yield Finding("disk", OK, "the first")
        time.sleep(30)

    begin = time.monotonic()
    first, second = within(0.2, "disk", check)
    assert time.monotonic() - begin < 5
    assert (first.found, second.level) == ("the first", WARNING)
    assert "did not end within 0.2 s" in second.found


def test_a_hanging_check_does_not_keep_the_process(tmp_path: Path) -> None:
    code = (
        "import time; from sd2eval.doctor.limits import within; "
        "print(within(0.1, 'disk', lambda: time.sleep(100))[-1].level)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.strip() == WARNING


LONG = Finding(
    "run_folder", PROBLEM, "a disk at /some/very/long/path/that/is/never/cut/into/pieces is full", "out=DIR"
)


@pytest.mark.parametrize("columns", range(40, 121, 8))
def test_lines_fit_every_width_and_lose_no_word(columns: int) -> None:
    folded = lines.lines(LONG, columns)
    words = [word for line in folded for word in line.split()]
    assert words == [LONG.level, LONG.check, *LONG.found.split(), "->", LONG.advice]
    longest = max(map(len, LONG.found.split()))
    assert all(len(line) <= max(columns, longest + 21) for line in folded)
    assert all(len(line) <= columns or len(line.split()) <= 3 for line in folded)


def test_in_a_pipe_a_finding_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines.show(LONG, lines.ENDLESS)
    assert capsys.readouterr().out.count("\n") == 1


def test_only_problems_make_a_machine_unfit() -> None:
    found = [Finding("a", OK, ""), Finding("b", WARNING, ""), Finding("c", WARNING, "")]
    assert Diagnosis("", found).healthy
    assert lines.summary(Diagnosis("x", found), 100)[-1] == "no problems, 2 warnings"
    assert not Diagnosis("", [*found, LONG]).healthy
    assert lines.summary(Diagnosis("x", [LONG]), 100)[-1].startswith(
        "1 problem, no warnings: a sweep would not"
    )


OVERRIDES = (
    "prompts.n=8",
    "guidance_scales=[1,3]",
    "checkpoints=[512-base,768-v]",
    "protocol.metrics=[fd_mini,lpips_mini]",
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of 8 captions at 2 scales that was begun with settings of its own."""
    config, definitions = from_overrides(*OVERRIDES)
    settings = asdict(config) | {"checkpoint_definitions": {d.name: asdict(d) for d in definitions}}
    store = RunFolder(tmp_path / "run")
    store.write_info(
        RunInfo(schema_version=SCHEMA_VERSION, identity="", identity_fields={}, config=settings, digests={})
    )
    return store


def test_the_plan_of_a_run_folder_is_what_was_begun_there(run: RunFolder) -> None:
    plan = recorded(run)
    assert (plan.config, plan.definitions) == from_overrides(*OVERRIDES)
    assert (plan.images, plan.images_left, plan.folder) == (32, 32, run.path)


def test_a_run_of_a_cluster_and_one_of_before_there_were_engines_have_a_plan(run: RunFolder) -> None:
    info = run.read_info()
    info.config["engine"] = asdict(from_overrides("engine=ray", "engine.address=auto")[0].engine)
    run.write_info(info)
    engine = recorded(run).config.engine
    assert (engine.name, engine.address) == ("ray", "auto")
    del info.config["engine"]
    run.write_info(info)
    assert recorded(run).config.engine.name == "local"


def test_what_is_published_needs_no_more_room(run: RunFolder) -> None:
    run.publish("512-base", Block(0, 5), {}, [], [], [1.0, 3.0])
    assert recorded(run).images_left == 32 - 6 * 2


def test_settings_beside_a_run_folder_go_before_its_own(run: RunFolder) -> None:
    plan = composed(("prompts.n=6", "checkpoints=[512-base]", "guidance_scales=[3]"), run.path)
    assert (plan.images, plan.folder, plan.named) == (6, run.path, True)


def test_without_a_name_the_folder_of_all_runs_is_looked_at() -> None:
    plan = composed((), None)
    assert (plan.folder, plan.named) == (Path("outputs"), False)


def test_a_damaged_record_is_one_line(run: RunFolder) -> None:
    (run.path / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"run\.json: not a readable run record"):
        run_doctor(folder=run.path)
    run.write_info(
        RunInfo(schema_version=SCHEMA_VERSION, identity="", identity_fields={}, config={}, digests={})
    )
    with pytest.raises(InputError, match=r"settings are those of another sd2eval"):
        run_doctor(folder=run.path)
