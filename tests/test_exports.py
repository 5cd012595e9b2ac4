"""`dir(sd2eval)` is the API: whoever adds to it or takes away does so here as well."""

from __future__ import annotations

import inspect

import pytest

import sd2eval


def test_the_public_names_are_these() -> None:
    verbs = ["compare_runs", "fetch_coco", "fetch_models", "load_run", "protocol_matrix", "reproduce_run"]
    checks = ["verify_coco", "verify_models", "write_report"]
    assert dir(sd2eval) == ["__version__", *verbs, "run_selfcheck", "run_sweep", *checks]


@pytest.mark.parametrize("name", sorted(set(sd2eval.__all__) - {"__version__"}))
def test_a_public_name_is_a_documented_function_with_types(name: str) -> None:
    function = getattr(sd2eval, name)
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values())


def test_a_name_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(AttributeError, match=r"'load_runs'; it offers .*load_run"):
        _ = sd2eval.load_runs


def test_verbs_of_the_command_line_are_callable_from_python() -> None:
    from sd2eval.__main__ import VERBS

    functions = {
        "sweep": sd2eval.run_sweep,
        "report": sd2eval.write_report,
        "reproduce": sd2eval.reproduce_run,
        "compare": sd2eval.compare_runs,
        "protocol_matrix": sd2eval.protocol_matrix,
        "selfcheck": sd2eval.run_selfcheck,
        "models": sd2eval.fetch_models,
        "data": sd2eval.fetch_coco,
    }
    assert functions.keys() == VERBS.keys()
    assert all(map(callable, functions.values()))
