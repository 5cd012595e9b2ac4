"""RapidOCR (PP-OCRv6 on ONNX Runtime): lines of text, by models that come inside its wheel.

The three models are named by path, because a name alone lets the package download what it does not find.
`source` is a folder with other copies of them. Options are RapidOCR's own `Det` keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sd2eval.config import ComponentConfig
from sd2eval.errors import InputError
from sd2eval.probes.components.base import files_digest, loading, local_source, require
from sd2eval.probes.sightings import Word

PACKAGES = ("rapidocr", "onnxruntime")
MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
"""Finds lines, turns them upright, reads them."""


@dataclass(frozen=True, kw_only=True)
class RapidReader:
    """Reads lines of text."""

    name: str
    digest: str
    engine: Any

    def read(self, images: NDArray[np.uint8]) -> list[list[Word]]:
        """Return the lines of each image, uint8 [N, H, W, 3], as they are read: from the top down."""
        return [_lines(self.engine(np.ascontiguousarray(image[:, :, ::-1]))) for image in images]


def load(config: ComponentConfig, device: torch.device) -> RapidReader:
    """Load the three models; nothing is fetched, nothing is logged.

    Raises:
        Unavailable: the package or one of its models is missing or damaged.
    """
    package = require("rapidocr", "rapidocr", config)
    require("onnxruntime", "onnxruntime", config)
    with loading(config):
        folder = local_source(config) if config.source else Path(str(package.__file__)).parent / "models"
        files = {stage: folder / name for stage, name in MODELS.items()}
        digest = files_digest(list(files.values()))
        params: dict[str, Any] = {f"{stage}.model_path": str(file) for stage, file in files.items()}
        params |= {"Global.log_level": "critical"} | _threads()
        params |= {f"Det.{key}": value for key, value in config.options.items()}
        try:
            engine = package.RapidOCR(params=params)
            engine(np.full((64, 64, 3), 255, np.uint8))  # the models are only read when they are needed
            engine._load_cls_model(), engine._load_rec_model()
        except Exception as error:  # onnxruntime's own errors share no class
            raise InputError(f"{folder}: its models cannot be read ({_short(error)})") from error
    return RapidReader(name=config.name, digest=digest, engine=engine)


def _threads() -> dict[str, Any]:
    """Keep to as many threads as torch does; the default takes all cores."""
    return {"EngineConfig.onnxruntime.intra_op_num_threads": torch.get_num_threads()}


def _lines(answer: Any) -> list[Word]:
    if answer.txts is None:
        return []
    lines = []
    for text, score, corners in zip(answer.txts, answer.scores, answer.boxes, strict=True):
        (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        lines.append(Word(text=text, confidence=float(score), box=(left, top, right, bottom)))
    return lines


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
