"""What is installed: every package, every data file, nothing of the tests, and it runs from anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
BESIDE = ("conf", "runners", "reports")  # packages below sd2eval whose folders lie beside it in a checkout


def packages(root: Path) -> set[str]:
    """Return the packages that lie in a checkout, by the name they are installed under."""
    inside = (file.parent.relative_to(root) for file in (root / "sd2eval").rglob("__init__.py"))
    beside = (f"sd2eval.{name}" for name in BESIDE if (root / name / "__init__.py").is_file())
    return {".".join(path.parts) for path in inside} | set(beside)


def files(root: Path) -> set[str]:
    """Return the files of all packages of a checkout, by their path in a wheel."""
    top = {root / "sd2eval": "sd2eval", **{root / name: f"sd2eval/{name}" for name in BESIDE}}
    return {
        f"{name}/{file.relative_to(folder).as_posix()}"
        for folder, name in top.items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_pyproject_lists_every_package() -> None:
    assert set(SETUPTOOLS["packages"]) == packages(ROOT)


def test_a_forgotten_package_is_noticed(tmp_path: Path) -> None:
    for name in packages(ROOT):
        folder = tmp_path / SETUPTOOLS["package-dir"].get(name, name.replace(".", "/"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    assert packages(tmp_path) == set(SETUPTOOLS["packages"])
    (tmp_path / "sd2eval" / "forgotten").mkdir()
    (tmp_path / "sd2eval" / "forgotten" / "__init__.py").touch()
    assert packages(tmp_path) - set(SETUPTOOLS["packages"]) == {"sd2eval.forgotten"}


def test_folders_beside_the_library_are_packages_of_it() -> None:
    assert SETUPTOOLS["package-dir"] == {f"sd2eval.{name}": name for name in BESIDE}


def test_versions_agree() -> None:
    import sd2eval

    assert PROJECT["project"]["version"] == sd2eval.__version__


def test_every_dependency_has_a_lower_and_an_upper_bound() -> None:
    for requirement in PROJECT["project"]["dependencies"]:
        assert ">=" in requirement, requirement
        assert ",<" in requirement, requirement


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what packaging reads, so that no build/ is left here or taken from here."""
    copy = tmp_path_factory.mktemp("checkout")
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("sd2eval", *BESIDE):
        shutil.copytree(ROOT / name, copy / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(checkout), cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    run(*pip, "--target", str(target), str(wheel), cwd=target)
    return target


def run(*command: str, cwd: Path, path: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_wheel_holds_every_file_of_every_package_and_nothing_else(wheel: Path, checkout: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert sorted(names) == sorted(files(checkout))
    assert "sd2eval/py.typed" in names
    assert "sd2eval/conf/sweep.yaml" in names
    assert "sd2eval/reports/model_card_curves.csv" in names


def test_the_wheel_is_smaller_than_40_mb(wheel: Path) -> None:
    assert wheel.stat().st_size < 40e6


def test_the_sdist_holds_the_same_files(built: Path, checkout: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    inside = {
        name.removeprefix("sd2eval/") if name.split("/")[1] in BESIDE else name for name in files(checkout)
    }
    assert inside <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_installed_copy_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    where = "import sd2eval, sd2eval.conf; print(sd2eval.__file__, *sd2eval.conf.__path__)"
    for folder in run(sys.executable, "-c", where, cwd=tmp_path, path=installed).split():
        assert Path(folder).is_relative_to(installed)
    assert "sweep" in run(sys.executable, "-m", "sd2eval", "--help", cwd=tmp_path, path=installed)
    command = [sys.executable, "-m", "sd2eval", "sweep", "--cfg", "job", "experiment=model_card"]
    settings: Any = OmegaConf.create(run(*command, cwd=tmp_path, path=installed))
    assert settings["prompts"]["n"] == 10_000
    assert list(tmp_path.iterdir()) == []


def test_the_installed_copy_finds_its_data(installed: Path, tmp_path: Path) -> None:
    code = (
        "from sd2eval.plots import published_curves; from sd2eval.config import from_overrides;"
        "from sd2eval.checkpoints.sources import local_path;"
        "print(len(published_curves()), local_path(from_overrides()[0].data.root).is_dir())"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path, path=installed).split() == ["24", "True"]
