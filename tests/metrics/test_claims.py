"""Each public metric says what its interval is about."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

from sd2eval import metrics
from sd2eval.errors import InputError
from sd2eval.metrics.claims import CLAIMS, claim

DOCS = Path(__file__).parents[2] / "docs" / "uncertainty.md"


def metric_functions() -> set[str]:
    """Every public function of sd2eval.metrics that returns an Estimate."""
    found = set()
    for module in pkgutil.iter_modules(metrics.__path__):
        for name, function in inspect.getmembers(
            importlib.import_module(f"sd2eval.metrics.{module.name}"), inspect.isfunction
        ):
            if inspect.signature(function).return_annotation == "Estimate" and not name.startswith("_"):
                found.add(name)
    return found


def test_every_metric_function_has_a_claim_and_no_other_name_has():
    assert set(CLAIMS) == metric_functions()


def test_an_unmeasured_metric_has_no_claim():
    with pytest.raises(InputError, match="nothing is known about the interval of 'vibes'"):
        claim("vibes")


def test_every_claim_stands_on_a_row_of_the_published_table():
    measured = set(re.findall(r"^\| (\w+)", DOCS.read_text(), flags=re.MULTILINE))
    assert set(CLAIMS) <= measured


def test_the_published_table_keeps_the_claims():
    """A metric without a note is never said to be too wide or too narrow in the table."""
    text = DOCS.read_text()
    off = set(re.findall(r"^\| (\w+).*\| (?:wide|narrow) \|$", text, flags=re.MULTILINE))
    assert off
    assert all(claim(name).approximate for name in off)
