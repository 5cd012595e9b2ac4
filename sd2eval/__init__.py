"""sd2eval: the Stable Diffusion v2 model card as experiments anyone can run.

`dir(sd2eval)` is the public API. Nothing here imports torch: a finished run is read on any laptop.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# conf/, runners/ and reports/ lie beside this folder in a checkout and inside it in a wheel.
if not Path(__path__[0], "conf").is_dir():
    __path__.append(str(Path(__path__[0]).parent))

if TYPE_CHECKING:
    from sd2eval.coco import fetch_coco as fetch_coco
    from sd2eval.coco import verify_coco as verify_coco
    from sd2eval.comparison.compare import compare_runs as compare_runs
    from sd2eval.doctor.examine import run_doctor as run_doctor
    from sd2eval.matrix.compute import protocol_matrix as protocol_matrix
    from sd2eval.probes.run import run_probes as run_probes
    from sd2eval.report import load_run as load_run
    from sd2eval.report import write_report as write_report
    from sd2eval.reproduction.reproduce import reproduce_run as reproduce_run
    from sd2eval.selfcheck import run_selfcheck as run_selfcheck
    from sd2eval.sweep import run_sweep as run_sweep
    from sd2eval.verification.verify import verify_run as verify_run
    from sd2eval.weights.models import fetch_models as fetch_models
    from sd2eval.weights.models import verify_models as verify_models

_API = {
    "compare_runs": "sd2eval.comparison.compare",
    "fetch_coco": "sd2eval.coco",
    "fetch_models": "sd2eval.weights.models",
    "load_run": "sd2eval.report",
    "protocol_matrix": "sd2eval.matrix.compute",
    "reproduce_run": "sd2eval.reproduction.reproduce",
    "run_doctor": "sd2eval.doctor.examine",
    "run_probes": "sd2eval.probes.run",
    "run_selfcheck": "sd2eval.selfcheck",
    "run_sweep": "sd2eval.sweep",
    "verify_coco": "sd2eval.coco",
    "verify_models": "sd2eval.weights.models",
    "verify_run": "sd2eval.verification.verify",
    "write_report": "sd2eval.report",
}

__all__ = [
    "__version__",
    "compare_runs",
    "fetch_coco",
    "fetch_models",
    "load_run",
    "protocol_matrix",
    "reproduce_run",
    "run_doctor",
    "run_probes",
    "run_selfcheck",
    "run_sweep",
    "verify_coco",
    "verify_models",
    "verify_run",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public function on first use, so that `import sd2eval` stays instant."""
    if name not in _API:
        raise AttributeError(f"module 'sd2eval' has no attribute {name!r}; it offers {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
