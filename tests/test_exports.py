"""`dir(sd2eval)` is the API: whoever adds to it or takes away does so here as well."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

import sd2eval


def test_the_public_names_are_these() -> None:
    verbs = ["compare_runs", "fetch_coco", "fetch_models", "load_run", "protocol_matrix", "reproduce_run"]
    checks = ["verify_coco", "verify_models", "verify_run", "write_report"]
    assert dir(sd2eval) == [
        "__version__",
        *verbs,
        "run_doctor",
        "run_probes",
        "run_selfcheck",
        "run_sweep",
        *checks,
    ]


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
        "probe": sd2eval.run_probes,
        "report": sd2eval.write_report,
        "reproduce": sd2eval.reproduce_run,
        "compare": sd2eval.compare_runs,
        "protocol_matrix": sd2eval.protocol_matrix,
        "doctor": sd2eval.run_doctor,
        "verify": sd2eval.verify_run,
        "selfcheck": sd2eval.run_selfcheck,
        "models": sd2eval.fetch_models,
        "data": sd2eval.fetch_coco,
    }
    assert functions.keys() == VERBS.keys()
    assert all(map(callable, functions.values()))


PLUGINS = {
    "sd2eval.metrics": "METRICS Claim Metric Reference claim evaluate mean_of_images",
    "sd2eval.statistics": "Estimate",
    "sd2eval.extractors.base": "Extractor features in_batches local_source ready state_digest values",
    "sd2eval.config": "ExtractorConfig",
    "sd2eval.errors": "InputError",
    "sd2eval.weights.models": "obtain",
    "sd2eval.metrics.declared.fid": "FID",
}
"""What docs/plugins.md promises to other packages."""


@pytest.mark.parametrize("module", PLUGINS)
def test_what_plugins_import_is_there(module: str) -> None:
    assert set(PLUGINS[module].split()) <= set(dir(import_module(module)))
