"""What the model card publishes: the 24 points of its figure, how well they are read, how they were made."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

STEPS = 50
ETA = 0.0
"""DDIM, as in the authors' scripts."""
RESOLUTION = 512
"""Pixels of the scored images."""
IMAGES = 10_000
"""Prompts, and images behind each point."""
REFERENCE_IMAGES = 5_000
"""Images of COCO 2017 validation: our reading of the reference, which the card does not name."""
CLIP_MODEL, CLIP_WEIGHTS = "ViT-g-14", "laion2b_s12b_b42k"
"""The figure says "ViT-g/14"; these are the only weights that OpenCLIP had for it then."""
BETAS = (0.00085, 0.012)
"""Ends of the scaled-linear noise schedule."""
READING_ERROR = {"fid": 0.03, "clip_score": 0.0001}
"""How well a marker of the figure can be read, in the unit of each published metric, by its name."""


def published_curves() -> pd.DataFrame:
    """Return the 24 points of the model card's figure.

    Returns:
        Columns checkpoint, label, guidance_scale, clip_score (raw cosine, OpenCLIP ViT-g/14, read to about
        0.0001) and fid (10,000 images, read to about 0.03).
    """
    with files("sd2eval.reports").joinpath("model_card_curves.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, comment="#")
