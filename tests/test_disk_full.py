"""A disk that fills up in the middle: a clean stop with code 75, and the same command goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sd2eval
from sd2eval.errors import EXIT_BAD_INPUT, EXIT_RESUMABLE
from tests import damage

ROOT = Path(__file__).parents[1]
SMALL = ("experiment=smoke", "checkpoints=[512-base]", "shard_size=4", "progress=false")

# From a given file on, no file may be larger than one byte: the kernel says what a full disk says.
CHILD = """
import resource, sys
from sd2eval import store
name, count = sys.argv[1], int(sys.argv[2])
before = store._write
def limited(path, data):
    global count
    if path.name.startswith(name) or name in path.name:
        count -= 1
        if count == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    return before(path, data)
store._write = limited
from sd2eval.__main__ import main
sys.argv = ["sd2eval", "sweep", *sys.argv[3:]]
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("whole") / "run"
    sd2eval.run_sweep(*SMALL, f"out={out}")
    return (out / "results.csv").read_bytes()


@pytest.mark.parametrize(
    ("name", "count"), [("features.npz", 1), ("features.npz", 2), ("manifest.json", 2), ("results.csv", 1)]
)
def test_a_full_disk_is_a_stop_and_loses_nothing(name: str, count: int, whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", CHILD, name, str(count), *SMALL, f"out={out}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_RESUMABLE
    (line,) = ended.stderr.splitlines()
    assert line.startswith("sd2eval: no room on the disk")
    assert line.endswith("run the same command again to continue")
    published = sorted(folder.name for folder in out.glob("shards/512-base/[!.]*"))
    assert len(published) == {("results.csv", 1): 2}.get((name, count), count - 1)
    assert not (out / "results.csv").exists()
    run = sd2eval.run_sweep(*SMALL, f"out={out}")
    assert (run.path / "results.csv").read_bytes() == whole
    assert not list(out.rglob(".tmp-*"))


# The disk was full already: no file can be made larger than it is.
FULL = """
import resource, sys
from sd2eval.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("verb", ["sweep", "report", "verify"])
def test_a_disk_that_is_full_before_is_a_stop_and_loses_nothing(
    verb: str, begun: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(begun, out)
    before = damage.stamps(out)
    words = {"sweep": [*SMALL, f"out={out}"], "report": [out], "verify": [out, "--repair", "progress=false"]}
    command = [sys.executable, "-c", FULL, verb, *words[verb]]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_RESUMABLE
    (line,) = ended.stderr.splitlines()
    assert line.startswith("sd2eval: no room on the disk")
    assert damage.changed(before, out) == set()


@pytest.mark.parametrize("verb", ["report", "verify"])
def test_a_disk_that_is_read_only_is_one_line(verb: str, begun: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own, where the folder is mounted once more, read-only."""
    out = tmp_path / "run"
    shutil.copytree(begun, out)
    words = {"report": [out], "verify": [out, "--repair", "progress=false"]}
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    alone = ["unshare", "-Urm", "bash", "-c", script]
    if subprocess.run([*alone, out, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    command = [*alone, out, sys.executable, "-m", "sd2eval", verb, *words[verb]]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_BAD_INPUT
    (line,) = ended.stderr.splitlines()
    assert "(Read-only file system)" in line


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with something to draw, something damaged, and no tables."""
    out = tmp_path_factory.mktemp("begun") / "run"
    sd2eval.run_sweep(*SMALL, f"out={out}")
    shutil.rmtree(out / "shards" / "512-base" / "000004-000007")
    for name in damage.TABLES:
        (out / name).unlink()
    damage.flip(next(out.glob("images/*/*.png")), 99)
    return out
