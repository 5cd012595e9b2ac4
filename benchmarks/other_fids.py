"""Inception features and FID of images by other people's programs, each with given weights, on the CPU.

Each goes its own public way: torch-fidelity and torchmetrics take the weights' file as an argument,
pytorch-fid finds it in the folder where it would download it to, and clean-fid loads a TorchScript file made
from it. Images are folders of PNG files in the order of their names.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

BATCH = 16
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Other:
    """One program."""

    distribution: str
    preprocess: str
    """What our extractor calls its way of resizing."""
    features: Callable[[Path, Path], Features]
    """Folder and weights to float32 [N, 2048]."""
    fid: Callable[[Path, Path, Path], float]
    """Folders of generated and of real images, and weights."""

    @property
    def label(self) -> str:
        return f"{self.distribution} {version(self.distribution)}"


def write_images(folder: Path, images: NDArray[np.uint8]) -> Path:
    """Write [N, H, W, 3] as PNG files and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:06d}.png")
    return folder


def batches(folder: Path) -> Iterator[torch.Tensor]:
    """Yield the images of a folder as uint8 [n, 3, H, W]."""
    files = sorted(folder.glob("*.png"))
    for start in range(0, len(files), BATCH):
        arrays = [np.asarray(Image.open(file)) for file in files[start : start + BATCH]]
        yield torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def torch_fidelity_settings(weights: Path) -> dict[str, Any]:
    """Return what every call of torch-fidelity is given here."""
    return {
        "feature_extractor": "inception-v3-compat",
        "feature_extractor_weights_path": str(weights),
        "cuda": False,
        "cache": False,
        "verbose": False,
        "batch_size": BATCH,
    }


def _torch_fidelity_features(folder: Path, weights: Path) -> Features:
    from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

    settings = torch_fidelity_settings(weights) | {"input1": str(folder)}
    name = settings.pop("feature_extractor")
    network = create_feature_extractor(name, ["2048"], **settings)
    return extract_featuresdict_from_input_id(1, network, **settings)["2048"].numpy()  # type: ignore[no-any-return]


def _torch_fidelity_fid(generated: Path, real: Path, weights: Path) -> float:
    from torch_fidelity import calculate_metrics

    settings = torch_fidelity_settings(weights) | {"input1": str(generated), "input2": str(real)}
    return float(calculate_metrics(fid=True, **settings)["frechet_inception_distance"])


def torchmetrics_network(weights: Path, output: str = "2048") -> Any:
    """Return torchmetrics' network, which takes uint8 [n, 3, H, W]."""
    from torchmetrics.image.fid import NoTrainInceptionV3

    return NoTrainInceptionV3("inception-v3-compat", [output], str(weights))


def _torchmetrics_features(folder: Path, weights: Path) -> Features:
    network = torchmetrics_network(weights)
    return torch.cat([network(batch) for batch in batches(folder)]).numpy()


def _torchmetrics_fid(generated: Path, real: Path, weights: Path) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(weights))
    for folder, is_real in ((generated, False), (real, True)):
        for batch in batches(folder):
            metric.update(batch, real=is_real)
    return float(metric.compute())


@contextmanager
def _downloaded(weights: Path) -> Iterator[None]:
    """Let pytorch-fid find the weights where it would have downloaded them to."""
    from pytorch_fid.inception import FID_WEIGHTS_URL

    with tempfile.TemporaryDirectory() as home, patch.dict(os.environ, {"TORCH_HOME": home}):
        target = Path(home, "hub", "checkpoints", FID_WEIGHTS_URL.rpartition("/")[2])
        target.parent.mkdir(parents=True)
        target.symlink_to(weights.resolve())
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            yield


def _pytorch_fid_features(folder: Path, weights: Path) -> Features:
    from pytorch_fid.fid_score import get_activations
    from pytorch_fid.inception import InceptionV3

    with _downloaded(weights):
        network, files = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]]), sorted(folder.glob("*.png"))
        return np.asarray(get_activations(files, network, BATCH, num_workers=0), np.float32)


def _pytorch_fid_fid(generated: Path, real: Path, weights: Path) -> float:
    from pytorch_fid.fid_score import calculate_fid_given_paths

    with _downloaded(weights):
        return float(calculate_fid_given_paths([str(generated), str(real)], BATCH, "cpu", 2048, 0))


class _Scripted(torch.nn.Module):
    """The layout of the file that clean-fid downloads: all up to the pooling is called `layers`."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*list(network.children())[:-1])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)  # type: ignore[no-any-return]


def clean_fid_network(weights: Path) -> Any:
    """Return clean-fid's wrapper around a TorchScript file with these weights."""
    from cleanfid.inception_torchscript import InceptionV3W
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("any", ["2048"], feature_extractor_weights_path=str(weights))
    with tempfile.TemporaryDirectory() as folder:
        traced = torch.jit.trace(_Scripted(network), torch.zeros(1, 3, 299, 299))
        traced.save(str(Path(folder, "inception-2015-12-05.pt")))
        return InceptionV3W(folder, download=False)


def _clean_fid_features(folder: Path, weights: Path) -> Features:
    from cleanfid.fid import get_folder_features

    found = get_folder_features(
        str(folder),
        clean_fid_network(weights),
        0,
        batch_size=BATCH,
        device="cpu",
        mode="clean",
        verbose=False,
    )
    return np.asarray(found)


def _clean_fid_fid(generated: Path, real: Path, weights: Path) -> float:
    from cleanfid.fid import compute_fid

    network = clean_fid_network(weights)
    settings: dict[str, Any] = {"mode": "clean", "num_workers": 0, "batch_size": BATCH, "device": "cpu"}
    found = compute_fid(str(generated), str(real), custom_feat_extractor=network, verbose=False, **settings)
    return float(found)


OTHERS = (
    Other("torch-fidelity", "torch_fidelity", _torch_fidelity_features, _torch_fidelity_fid),
    Other("pytorch-fid", "pytorch_fid", _pytorch_fid_features, _pytorch_fid_fid),
    Other("clean-fid", "clean_fid", _clean_fid_features, _clean_fid_fid),
    Other("torchmetrics", "torchmetrics", _torchmetrics_features, _torchmetrics_fid),
)


def exact_frechet(generated: Features, real: Features) -> float:
    """Return the Frechet distance without taking the root of a singular matrix.

    The trace of (S_1 S_2)^(1/2) is the sum of the singular values of A B' for centred features A and B, each
    divided by the root of n - 1: exact however few images there are.
    """
    sides = [np.asarray(side, np.float64) for side in (generated, real)]
    a, b = ((side - side.mean(0)) / np.sqrt(len(side) - 1) for side in sides)
    shift = sides[0].mean(0) - sides[1].mean(0)
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * root)
