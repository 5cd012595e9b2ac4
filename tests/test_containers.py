"""What the container recipes name exists, and is all that an installation needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = ("Dockerfile", "sd2eval.def")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def copied(recipe: str) -> set[str]:
    """Return what a recipe takes from the repository."""
    text = (ROOT / "containers" / recipe).read_text()
    if recipe == "Dockerfile":
        return {
            name for words in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in words.split()
        }
    files = text.partition("%files\n")[2].partition("\n\n")[0]
    return {line.split()[0] for line in files.splitlines()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_takes_what_exists_and_all_that_is_installed(recipe: str) -> None:
    taken = copied(recipe)
    assert all((ROOT / name).exists() for name in taken)
    folders = {Path(folder).parts[0] for folder in PROJECT["tool"]["setuptools"]["package-dir"].values()}
    project = PROJECT["project"]
    assert taken == {"sd2eval", *folders, "pyproject.toml", project["readme"], *project["license-files"]}


def test_the_images_context_is_what_it_copies() -> None:
    lines = (ROOT / "containers" / "Dockerfile.dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied("Dockerfile")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_installs_an_extra_that_is_declared_on_a_python_that_is_supported(recipe: str) -> None:
    text = (ROOT / "containers" / recipe).read_text()
    (extras,) = re.findall(r'pip install --no-cache-dir "/opt/sd2eval\[([\w,]+)\]"', text)
    assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()
    assert set(extras.split(",")) == {"ray", "slurm"}  # docs/clusters.md has both in a container
    (version,) = re.findall(r"(?:FROM|From:) python:([\d.]+)-slim", text)
    assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_recipe_starts_is_a_command_of_this_package(recipe: str) -> None:
    text = (ROOT / "containers" / recipe).read_text().replace('", "', " ")
    assert re.search(r"python -m sd2eval\b", text)
    done = subprocess.run(
        [sys.executable, "-m", "sd2eval", "--help"], cwd=ROOT, capture_output=True, check=True
    )
    assert b"sweep" in done.stdout
