"""The verb `models`: against a loopback hub, with a table of small files."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
from huggingface_hub import constants

from sd2eval import hub, models
from sd2eval.__main__ import main
from sd2eval.errors import InputError
from sd2eval.first_use import recorded
from sd2eval.inventory import holding
from sd2eval.published import Published, published
from tests.hub_server import Hub, connect, serve

ROOT = Path(__file__).parents[1]
CONTENTS = {name: random.Random(name).randbytes(200_000) for name in ("first", "second", "unpublished")}


@dataclass
class World:
    """A hub, a table that describes it, and a machine with empty caches."""

    server: Hub
    table: Path
    home: Path
    said: list[str] = field(default_factory=list)

    def fetch(self, *names: str) -> str:
        """Fetch in this process and return what was said."""
        self.said.clear()
        models.fetch(names, self.table, progress=False, say=self.said.append)
        return "\n".join(self.said)

    def refusal(self, *names: str) -> str:
        """Fetch what cannot be had and return the line that says why."""
        with pytest.raises(InputError) as caught:
            self.fetch(*names)
        return str(caught.value)

    def verify(self, *names: str) -> tuple[bool, str]:
        """Verify in this process and return the judgement and what was said."""
        self.said.clear()
        right = models.verify(names, self.table, progress=False, say=self.said.append)
        return right, "\n".join(self.said)

    def state(self, name: str) -> str:
        return holding(published(self.table)[name]).state

    def child(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        """Start `python -m sd2eval models ...` with the environment that a user sets."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
        }
        environment |= {"HF_ENDPOINT": self.server.endpoint, "HF_HOME": str(self.home)} | settings
        return subprocess.Popen(
            [sys.executable, "-m", "sd2eval", "models", *words, f"table={self.table}"],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def write_table(file: Path, *rows: dict[str, str]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Published)], restval="")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(hub, "PAUSES", (0.01,))
    with serve() as server:
        connect(server, tmp_path / "home" / "hub", monkeypatch)
        digests = {name: server.put(f"owner/{name}", f"{name}.ckpt", CONTENTS[name]) for name in CONTENTS}
        here = server.put("owner/address", "net.pth", b"weights of a network")
        rows = [
            {
                "name": name,
                "describes": f"the {name} weights",
                "file": f"{name}.ckpt",
                "repository": f"owner/{name}",
                "sha256": digests[name] if name != "unpublished" else "",
                "study": "" if name == "second" else "model_card",
                "use": f"checkpoint={name} checkpoint.source={{path}}",
                "about_bytes": "200000",
            }
            for name in CONTENTS
        ]
        address = {"name": "address", "describes": "a network", "file": "net.pth", "sha256": here}
        rows.append(address | {"url": f"{server.endpoint}/lfs/{here}"})
        write_table(tmp_path / "table.csv", *({"kind": "checkpoint"} | row for row in rows))
        yield World(server, tmp_path / "table.csv", tmp_path / "home")


def test_fetch_puts_weights_where_the_hubs_cache_keeps_them_and_says_how_to_use_them(world: World) -> None:
    child = world.child("fetch", "first", "address")
    said, shown = child.communicate(timeout=60)
    assert child.returncode == 0, shown
    (path,) = world.home.glob("hub/models--owner--first/snapshots/*/first.ckpt")
    assert path.read_bytes() == CONTENTS["first"]
    assert f"first: the first weights is here and right: {path}" in said
    assert f"use it: checkpoint=first checkpoint.source={path}" in said
    assert Path(os.environ["TORCH_HOME"], "hub/checkpoints/net.pth").read_bytes() == b"weights of a network"
    assert world.state("first") == world.state("address") == "verified"


def test_a_fetch_that_was_killed_goes_on_where_it_was(world: World) -> None:
    world.server.faults.stall_after = 60_000
    child = world.child("fetch", "first")
    assert world.server.stalled.wait(30)
    while not any(part.stat().st_size == 60_000 for part in world.home.glob("hub/*/blobs/.*.part")):
        assert child.poll() is None
    child.kill()
    child.communicate()
    world.server.faults.stall_after = None
    world.server.log.clear()
    child = world.child("fetch", "first")
    _, shown = child.communicate(timeout=60)
    assert child.returncode == 0, shown
    assert [request.headers.get("Range") for request in world.server.bodies()] == ["bytes=60000-"]
    assert world.state("first") == "verified"


def test_offline_what_is_not_in_the_cache_is_one_line(world: World) -> None:
    child = world.child("fetch", "first", HF_HUB_OFFLINE="1")
    _, shown = child.communicate(timeout=60)
    assert child.returncode == 2
    assert shown.startswith("sd2eval: first: HF_HUB_OFFLINE is set")
    assert shown.count("\n") == 1
    assert world.server.log == []


def test_offline_what_is_in_the_cache_is_fetched_already(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fetch("first")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is here and right" in world.fetch("first")


def test_other_weights_under_the_right_name_are_refused_named_and_removed(world: World) -> None:
    world.server.put("owner/first", "first.ckpt", CONTENTS["second"])
    line = world.refusal("first")
    assert "it is second: the second weights, not the first weights" in line
    assert "removed from the cache" in line
    assert world.state("first") == "missing"
    world.server.put("owner/first", "first.ckpt", CONTENTS["first"])
    world.fetch("first")
    assert world.state("first") == "verified"


def test_weights_that_nobody_knows_are_refused(world: World) -> None:
    world.server.put("owner/first", "first.ckpt", b"something else")
    assert "it is no file that sd2eval knows" in world.refusal("first")
    assert world.state("first") == "missing"


def test_a_damaged_file_in_the_cache_is_removed_and_a_foreign_one_is_not(world: World) -> None:
    world.fetch("first")
    path = hub.in_cache("owner/first", "first.ckpt")
    assert path is not None
    path.resolve().write_bytes(CONTENTS["first"][:-1] + b"?")
    assert "removed" in world.refusal("first")
    assert "is here and right" in world.fetch("first")

    world.server.put("owner/first", "first.ckpt", b"something else")
    kept = hub.file("owner/first", "first.ckpt", progress=False)
    assert "stays there" in world.refusal("first")
    assert kept.is_file()


def test_where_no_digest_is_published_the_first_one_holds(world: World) -> None:
    assert "is here and right" in world.fetch("unpublished")
    (use,) = recorded()
    assert (use.name, use.origin) == ("unpublished", "owner/unpublished")
    assert world.state("unpublished") == "verified"
    changed = world.server.put("owner/unpublished", "unpublished.ckpt", b"moved on")
    line = world.refusal("unpublished")
    assert use.sha256 in line
    assert changed in line
    models.forget("unpublished", say=world.said.append)
    world.fetch("unpublished")
    assert [use.sha256 for use in recorded()] == [changed]


def test_fetching_all_takes_what_the_study_needs_and_goes_on_after_a_failure(world: World) -> None:
    del world.server.files["owner/first"]
    line = world.refusal("all")
    assert line == "1 of 2 were not fetched, see above: first"
    assert [world.state(name) for name in ("first", "second", "unpublished")] == [
        "missing",
        "missing",
        "verified",
    ]
    assert world.said[0].startswith("first: owner/first is not on")


def test_an_address_with_other_content_is_refused(world: World) -> None:
    world.server.faults.corrupt = True
    assert "not the file wanted" in world.refusal("address")
    assert world.state("address") == "missing"


def test_what_does_not_fit_in_all_is_refused_before_the_first_download(world: World) -> None:
    text = world.table.read_text().replace("200000", "9" * 18)
    vast = world.table.with_name("vast.csv")
    vast.write_text(text)
    world.table = vast
    assert "fetching 2 files needs" in world.refusal("all")
    assert world.server.log == []


def test_verify_hashes_what_is_here_and_misses_nothing_else(world: World) -> None:
    world.fetch("first", "unpublished")
    right, said = world.verify()
    assert right
    assert "first: right (" in said
    assert "unpublished: as recorded at first use on" in said
    assert "second: not on this machine" in said


def test_verify_finds_the_file_that_is_wrong_and_says_what_it_is(world: World) -> None:
    world.fetch("first")
    path = hub.in_cache("owner/first", "first.ckpt")
    assert path is not None
    path.resolve().write_bytes(CONTENTS["second"])
    assert world.state("first") == "not verified"
    right, said = world.verify("first")
    assert not right
    assert "first: WRONG" in said
    assert "it is second: the second weights" in said
    assert world.state("first") == "wrong"


def test_verify_of_a_name_that_is_not_here_is_a_mistake(world: World) -> None:
    with pytest.raises(InputError, match="models fetch first"):
        world.verify("first")
    with pytest.raises(InputError, match="did you mean 'first'"):
        world.verify("fisrt")
    with pytest.raises(InputError, match=r"gone\.ckpt: no such file"):
        world.verify("gone.ckpt")


def test_a_file_is_told_by_its_digest_whatever_it_is_called(world: World, tmp_path: Path) -> None:
    file = tmp_path / "first.ckpt"
    file.write_bytes(CONTENTS["second"])
    assert world.verify(str(file)) == (True, f"{file} is second: the second weights")
    file.write_bytes(b"of my own")
    right, said = world.verify(str(file))
    assert not right
    assert "none of the published ones" in said
    world.fetch("unpublished")
    file.write_bytes(CONTENTS["unpublished"])
    right, said = world.verify(str(file))
    assert right
    assert "first used as 'unpublished' from owner/unpublished" in said


def run(world: World, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the verb in this process and return exit code, stdout and stderr."""
    try:
        code = main(["models", *words, f"table={world.table}"])
    except SystemExit as stop:
        code = int(str(stop.code))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_list_reads_and_asks_nothing_and_fits_a_page(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.fetch("unpublished")
    world.server.log.clear()
    code, shown, _ = run(world, capsys, "list")
    assert code == 0
    assert world.server.log == []
    assert max(len(line) for line in shown.splitlines()) <= 100
    assert "\x1b" not in shown
    assert f"recorded {recorded()[0].sha256[:12]}" in shown
    assert "missing" in shown


def test_the_list_as_json_has_everything(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.fetch("first", "unpublished")
    code, shown, _ = run(world, capsys, "list", "json=true")
    assert code == 0
    listed = {entry["name"]: entry for entry in json.loads(shown)}
    assert list(listed) == ["first", "second", "unpublished", "address"]
    assert listed["first"]["state"] == "verified"
    assert Path(listed["first"]["path"]).read_bytes() == CONTENTS["first"]
    assert listed["second"]["path"] is None
    assert listed["unpublished"]["recorded"]["origin"] == "owner/unpublished"


def test_exit_codes_tell_wrong_from_mistaken(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, capsys, "fetch", "first", "progress=false")[0] == 0
    assert run(world, capsys, "verify")[0] == 0
    hub.discard(Path(hub.in_cache("owner/first", "first.ckpt") or ""))
    assert run(world, capsys, "verify", "first")[0] == 2
    assert run(world, capsys, "verify", str(world.table))[0] == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "models: do what? list, verify, fetch, forget"),
        (["lsit"], "'lsit': no such action; did you mean 'list'?"),
        (["list", "first"], "models list: takes no names (first)"),
        (["fetch"], "fetch what? all"),
        (["fetch", "frist"], "did you mean 'first'?"),
        (["forget"], "models forget: give one name"),
        (["forget", "first"], "no digest was recorded for 'first'; recorded: none"),
        (["list", "jsn=true"], "'jsn': no such key; did you mean 'json'?"),
        (["list", "--json"], "'--json': not understood"),
    ],
)
def test_mistakes_are_one_line(
    world: World, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    code, shown, said = run(world, capsys, *words)
    assert (code, shown) == (2, "")
    assert line in said
    assert said.count("\n") == 1


def test_the_help_names_every_action_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "list",
        "verify",
        "fetch",
        "forget",
        "table=",
        "json=",
        "progress=",
        "HF_HOME",
        "TORCH_HOME",
    ):
        assert word in shown
    assert max(len(line) for line in shown.splitlines()) <= 110


def test_the_verb_needs_no_torch() -> None:
    code = "from sd2eval.__main__ import main; main(['models', 'list']); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint({"torch", "diffusers", "transformers", "numpy", "pandas", "hydra"})
    assert "512-inpainting-ema" in done.stdout
