"""The command line as people meet it: what it lists, and one line with exit code 2 for every mistake."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf

import sd2eval
from sd2eval.__main__ import VERBS, main

ROOT = Path(__file__).parents[1]


class Ended(NamedTuple):
    code: str | int | None
    out: str
    err: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder; what main() sets for Hydra is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return tmp_path


def call(words: str, capfd: pytest.CaptureFixture[str]) -> Ended:
    capfd.readouterr()
    try:
        code: str | int | None = main(shlex.split(words))
    except SystemExit as end:
        code = end.code
    return Ended(code, *capfd.readouterr())


def python_m(*words: str, cwd: Path) -> Ended:
    command = [sys.executable, "-m", "sd2eval", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("words", ["", "--help", "-h", "help"])
def test_alone_it_lists_each_verb_with_one_line(words: str, capfd: pytest.CaptureFixture[str]) -> None:
    ended = call(words, capfd)
    assert (ended.code, ended.err) == (0, "")
    lines = [line.split(maxsplit=1) for line in ended.out.splitlines() if line.startswith("  ")]
    assert {verb: text for verb, text in lines} == VERBS
    assert max(map(len, ended.out.splitlines())) <= 110


def test_it_says_its_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("--version", capfd).out.split() == ["sd2eval", sd2eval.__version__]


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself(verb: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = call(f"{verb} --help", capfd)
    assert ended.code in (0, None)
    assert ended.err == ""
    assert ended.out.startswith(f"Usage: python -m sd2eval {verb}")
    assert "$" not in ended.out
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        "models list --help",
        "models fetch -h",
        "models fetch all --help json=maybe",
        "data fetch --help",
        "data fetch coco -h",
        "data --help verify",
        "report nowhere --help",
        "selfcheck device=tpu --help",
        "sweep prompts.n=abc --help",
        "sweep -h =3 zzz=1",
    ],
)
def test_help_is_given_wherever_it_is_asked_for(
    words: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = call(words, capfd)
    assert (ended.code in (0, None), ended.err) == (True, "")
    assert ended.out.startswith(f"Usage: python -m sd2eval {words.split()[0]}")


def test_settings_are_printed_and_nothing_is_run(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = call("sweep --cfg job prompts.n=7 checkpoints=[768-v]", capfd)
    assert ended.code in (0, None)
    settings: Any = OmegaConf.create(ended.out)
    assert settings["prompts"] == {"n": 7, "seed": 0, "first": 500, "most": None}
    assert settings["checkpoints"] == ["768-v"]
    assert list(here.iterdir()) == []


def test_own_checkpoints_come_from_a_folder(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = here / "own" / "checkpoint" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("defaults: [512-base, _self_]\nname: mine\nsource: weights\n")
    assert "mine" in call("sweep --config-dir own --help", capfd).out.split(", ")
    settings: Any = OmegaConf.create(call("sweep --config-dir own checkpoint=mine --cfg job", capfd).out)
    assert settings["checkpoint"]["source"] == "weights"


# What was typed, and what the one line must name: the key, and what is allowed or what to do.
MISTAKES = {
    "sweeep": ("sweeep", "did you mean 'sweep'", "report"),
    "prompts.n=3": ("prompts.n=3", "verbs: sweep, probe, report"),
    # keys
    "sweep prompts.m=3": ("prompts.m", "did you mean 'prompts.n'"),
    "sweep guidance_scale=[3]": ("guidance_scale:", "did you mean 'guidance_scales'"),
    "sweep zzz=3": ("zzz", "checkpoints, checkpoint, guidance_scales"),
    "sweep +new=1": ("new", "no such key"),
    "sweep ++prompts.new=1": ("prompts.new", "no such key"),
    "sweep ~seed": ("seed", "a value is needed"),
    "sweep ~prompts.n": ("prompts.n", "cannot be removed"),
    "sweep prompts=3": ("prompts", "prompts.n, prompts.seed"),
    # types
    "sweep prompts.n=abc": ("prompts.n=abc", "a whole number"),
    "sweep prompts.n=1.5": ("prompts.n=1.5", "a whole number"),
    "sweep prompts.n=null": ("prompts.n", "allowed: a whole number, or auto"),
    "sweep prompts.n=": ("prompts.n", "a whole number"),
    "sweep seed=1,2": ("seed=1,2", "one value"),
    "sweep sampler.eta=x": ("sampler.eta=x", "a number"),
    "sweep dry_run=maybe": ("dry_run=maybe", "true or false"),
    "sweep guidance_scales=3": ("guidance_scales", "a list is needed"),
    "sweep guidance_scales=null": ("guidance_scales", "null is not allowed"),
    "sweep guidance_scales=[a]": ("guidance_scales", "a number"),
    # values
    "sweep guidance_scales=[]": ("guidance_scales", "at least one scale"),
    "sweep guidance_scales=[2,-1]": ("guidance_scales=[2.0,-1.0]", "at least 0"),
    "sweep guidance_scales=[nan]": ("guidance_scales=[nan]", "finite"),
    "sweep guidance_scales=[inf]": ("guidance_scales=[inf]", "finite"),
    "sweep guidance_scales=[3,3.0]": ("guidance_scales", "each scale once"),
    "sweep sampler.steps=0": ("sampler.steps=0", "1 to 1000"),
    "sweep sampler.steps=1001": ("sampler.steps=1001", "1 to 1000"),
    "sweep sampler.eta=nan": ("sampler.eta=nan", "0 (DDIM) to 1"),
    "sweep prompts.n=1": ("prompts.n=1", "at least 2"),
    "sweep seed=-1": ("seed=-1", "0 to 2**63 - 1"),
    "sweep prompts.seed=-1": ("prompts.seed=-1", "0 to"),
    "sweep batch_size=0": ("batch_size=0", "at least 1"),
    "sweep shard_size=0": ("shard_size=0", "at least 1"),
    "sweep dtype=int8": ("dtype=int8", "float32, bfloat16, float16"),
    "sweep device=tpu": ("device=tpu", "auto, cpu, cuda"),
    "sweep device=cuda:x": ("device=cuda:x", "cuda:N"),
    "sweep images=some": ("images=some", "all, grid, none"),
    "sweep energy.country=Narnia": ("energy.country=Narnia", "USA"),
    "sweep out=''": ("out=", "a folder"),
    # checkpoints
    "sweep checkpoints=[]": ("checkpoints", "at least one checkpoint"),
    "sweep checkpoints=[nope]": ("checkpoints", "'nope'", "512-base, "),
    "sweep checkpoints=[768-v,768-v]": ("checkpoints", "each checkpoint once"),
    "sweep checkpoints=768-v": ("checkpoints", "a list is needed"),
    "sweep checkpoint=nope": ("checkpoint=nope", "512-base, "),
    "sweep checkpoint=768-v checkpoints=[768-v]": ("checkpoint", "not both"),
    "sweep checkpoint.source=x": ("checkpoint", "checkpoint=NAME"),
    "sweep checkpoint=512-base checkpoint.name=a/b": ("checkpoint.name=a/b", "letters, digits"),
    "sweep checkpoint=512-base checkpoint.conditioning=x": ("checkpoint.conditioning=x", "text, depth, "),
    "sweep checkpoint=512-base checkpoint.prediction_type=x": ("prediction_type=x", "epsilon, v_prediction"),
    "sweep checkpoint=512-base checkpoint.resolution=100": ("checkpoint.resolution=100", "multiple of 8"),
    "sweep checkpoint=512-base checkpoint.beta_end=nan": ("checkpoint.beta_end=nan", "at least beta_start"),
    "sweep checkpoint=512-base checkpoint.noise_level=3": ("checkpoint.noise_level=3", "upscaling"),
    "sweep checkpoint=x4-upscaling checkpoint.noise_level=null": ("checkpoint.noise_level=null", "0 to 999"),
    "sweep checkpoint=512-base checkpoint.components.unet=x": ("checkpoint.components.unet", "leading +"),
    "sweep checkpoint=512-base +checkpoint.components.head=x": ("checkpoint.components=head", "unet, vae"),
    "sweep noise_levels=[20,-1]": ("sd2eval: noise_levels=[20,-1]", "0 to 999"),
    "sweep noise_levels=[1000] checkpoint=x4-upscaling": ("sd2eval: noise_levels=[1000]", "0 to 999"),
    # groups and what must fit together
    "sweep data=nope": ("data=nope", "coco, coco2014, mini"),
    "sweep protocol=nope": ("protocol=nope", "mini_native, mini_squash, mlperf, model_card"),
    "sweep experiment=nope": ("experiment=nope", "model_card, smoke"),
    "sweep extractor=mini_clip": ("extractor", "extractor@protocol.distance"),
    "sweep protocol=model_card": ("512-base", "512 pixels"),
    "sweep protocol.metrics=[]": ("protocol.metrics", "at least one metric"),
    "sweep protocol.metrics=[nope]": ("protocol.metrics=nope", "fid, fd_mini, fd_dinov2, kid"),
    "sweep protocol.metrics=[fid]": ("protocol.metrics=fid", "protocol.distance.kind=inception"),
    "sweep protocol.distance.kind=x": ("protocol.distance.kind=x", "inception"),
    "sweep protocol.score.batch_size=0": ("protocol.score.batch_size=0", "at least 1"),
    # words
    "sweep prompts.n": ("'prompts.n'", "KEY=VALUE"),
    "sweep =3": ("'=3'", "KEY=VALUE"),
    "sweep guidance_scales=[1": ("'guidance_scales=[1'", "without spaces"),
    "sweep guidance_scales=[1, 2]": ("'guidance_scales=[1,'", "without spaces"),
    "sweep --foo": ("--foo", "--help"),
    "sweep --cfg": ("--cfg", "one argument"),
    "sweep --cfg nope": ("--cfg", "'job'"),
    "sweep --resolve": ("--resolve", "--cfg"),
    "sweep --cfg job --info": ("--cfg", "only one"),
    "sweep --config-dir nowhere": ("nowhere", "not found"),
    "report": ("report DIR", "run folder"),
    "report a b": ("report DIR", "run folder"),
    "report --foo": ("report DIR", "run folder"),
    "report nowhere": ("nowhere", "no run here"),
    # found out only with torch and the data at hand
    "sweep device=cuda:99": ("device=cuda:99", "; this machine has cpu"),
    "sweep data=coco": ("data.root", "data.root=DIR"),
    "sweep dry_run=true data=coco data.root=nowhere": ("data.root=nowhere", "no such folder"),
    "sweep dry_run=true checkpoint=512-base checkpoint.source=/nope.ckpt": ("source=/nope.ckpt", "no such"),
    "sweep data=coco data.root=/dev/null": ("data.root=/dev/null", "a folder is needed"),
    "report /dev/null": ("/dev/null", "a run folder is needed"),
    "models verify .": (".: is a folder",),
    "data verify root=/dev/null": ("/dev/null", "a folder is needed"),
    "sweep data=coco data.root=nowhere": ("data.root=nowhere", "no such folder"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_gets_one_line_that_names_it(
    words: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = call(words, capfd)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("sd2eval: ")
    assert ended.err.count("\n") == 1
    assert ended.err.endswith("\n")
    for part in MISTAKES[words]:
        assert part in ended.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("words", ["sweep prompts.m=3", "sweep --foo", "sweep data=coco data.root=nowhere"])
def test_a_mistake_ends_a_process_the_same_way(words: str, tmp_path: Path) -> None:
    ended = python_m(*words.split(), cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("sd2eval: ")
    assert ended.err.count("\n") == 1


def test_a_bug_is_not_dressed_up_as_a_mistake(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from sd2eval import sweep

    def bug(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(sweep, "sweep", bug)
    with pytest.raises(ZeroDivisionError, match="planted"):
        call("sweep", capfd)


# What is called, and whether the same command continues after an interruption.
INTERRUPTED = {
    "sweep": ("sweep.sweep", True),
    "sweep dry_run=true": ("price_table.show", False),
    "report run": ("report.write_report", False),
    "selfcheck": ("selfcheck.run_selfcheck", False),
    "models list": ("weights.models.holdings", False),
    "models verify": ("weights.models.verify_models", False),
    "models fetch all": ("weights.models.fetch_models", True),
    "data verify": ("coco.verify_coco", False),
    "data fetch coco": ("coco.fetch_coco", True),
}


@pytest.mark.parametrize("words", INTERRUPTED)
def test_an_interruption_says_what_the_same_command_does_next(
    words: str, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    name, continues = INTERRUPTED[words]

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("stopped by SIGINT")

    monkeypatch.setattr(f"sd2eval.{name}", interrupt)
    ended = call(words, capfd)
    outlook = "run the same command again to continue" if continues else "starts from the beginning"
    assert (ended.code, ended.out) == (75, "")
    assert ended.err.startswith("sd2eval: stopped by SIGINT; ")
    assert ended.err.endswith(f"{outlook}\n")


def test_a_stop_says_how_to_go_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from sd2eval import sweep

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "sweep", stop)
    ended = call("sweep", capfd)
    assert ended.code == 75
    assert ended.err.count("\n") == 1
    assert "run the same command again" in ended.err


def test_the_verb_gets_the_settings_that_were_typed(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from sd2eval import report, sweep

    seen: list[str] = []
    monkeypatch.setattr(sweep, "sweep", lambda config, _: seen.append(json.dumps(config.guidance_scales)))
    monkeypatch.setattr(report, "show", lambda _: None)
    assert call("sweep guidance_scales=[2.5]", capfd).code == 0
    assert seen == ["[2.5]"]
