"""Our metrics beside other programs' on the same images with the same weights, as a Markdown table.

    OMP_NUM_THREADS=1 python benchmarks/parity.py [--images FOLDER] [--weights FILE]

Without a folder, synthetic images. With one, its JPEG and PNG files, cropped square as everywhere, against
their middles mirrored, enlarged and paled. The weights are random unless the published file is given. `prdc`
is compared if it is installed (it needs scikit-learn). Ten minutes for 79 images on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from other_fids import (
    OTHERS,
    batches,
    exact_frechet,
    torch_fidelity_settings,
    torchmetrics_network,
    write_images,
)
from random_inception import Images, save_random_inception, synthetic_images

from sd2eval.config import ExtractorConfig
from sd2eval.extractors import load_extractor
from sd2eval.images import load_rgb, square
from sd2eval.metrics import METRICS, Reference, evaluate
from sd2eval.metrics.inception_score import inception_score
from sd2eval.metrics.neighbours import neighbour_reference, precision, recall

SIDE = 256
Outputs = Mapping[str, NDArray[np.float32]]
FRECHET = "squared Fréchet distance of Gaussians with means and unbiased covariances", "Heusel et al. 2017"
KERNEL = "unbiased squared MMD, kernel (x·y/d + 1)³, one subset of all images", "Bińkowski et al. 2018"
SCORE = "exp of the mean divergence of class probabilities, {} split{}", "Salimans et al. 2016"
BALLS = "share inside the other set's balls of the k = {} nearest", "Kynkäänniemi et al. 2019"
DENSITY = "mean number of reference balls around a sample / k, k = 5", "Naeem et al. 2020"
ORDER = "FID", "FID, exact root", "KID", "Inception Score", "precision", "recall", "density", "coverage"
COVERAGE = "share of reference balls with a sample in them, k = 5", "Naeem et al. 2020"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    metric: str
    definition: tuple[str, str]
    """What it is, and where from."""
    program: str
    theirs: float
    ours: float

    def __str__(self) -> str:
        apart = abs(self.ours - self.theirs) / abs(self.theirs) if self.theirs else abs(self.ours)
        difference = "0" if not apart else f"{apart:.0e}"
        cells = (
            self.metric,
            *self.definition,
            self.program,
            f"{self.theirs:.9g}",
            f"{self.ours:.9g}",
            difference,
        )
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Case:
    """Two folders of images, the weights, and our extractor's outputs for them by way of resizing."""

    generated: Path
    real: Path
    weights: Path
    ours: Mapping[str, tuple[Outputs, Outputs]]

    def value(self, metric: str, preprocess: str) -> float:
        """Return one of our metrics."""
        generated, real = self.ours[preprocess]
        return evaluate(METRICS[metric], generated["features"], Reference(real["features"])).value


def photographs(folder: Path) -> tuple[Images, Images]:
    """Return altered copies of a folder's images and the images, uint8 [N, 256, 256, 3]."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    real = np.stack([square(load_rgb(file), SIDE) for file in files])
    margin = SIDE // 4
    middle = real[:, margin:-margin, margin:-margin][:, :, ::-1]
    enlarged = middle.repeat(2, axis=1).repeat(2, axis=2)
    return (0.85 * enlarged + 10).round().astype(np.uint8), real


def our_outputs(weights: Path, preprocess: str, *sets: Images) -> tuple[Outputs, ...]:
    """Return features and logits of each set."""
    config = ExtractorConfig(
        name="inception", kind="inception", model=None, pretrained=None, source=str(weights),
        preprocess=preprocess, dtype="float32", batch_size=16,
    )  # fmt: skip
    extractor = load_extractor(config, torch.device("cpu"))
    assert extractor.images is not None
    return tuple(extractor.images(images) for images in sets)


def frechet_rows(case: Case) -> Iterator[Row]:
    """Yield the FID of each program from files to number, and of its features with the exact root."""
    for other in OTHERS:
        ours = case.value("fid", other.preprocess)
        yield Row("FID", FRECHET, other.label, other.fid(case.generated, case.real, case.weights), ours)
        sides = [other.features(folder, case.weights) for folder in (case.generated, case.real)]
        definition = "the same of their features, root by singular values", FRECHET[1]
        yield Row("FID, exact root", definition, other.label, exact_frechet(sides[0], sides[1]), ours)


def torch_fidelity_rows(case: Case) -> Iterator[Row]:
    """Yield what torch-fidelity makes of its own features and logits."""
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric
    from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

    label, (ours, reference) = OTHERS[0].label, case.ours["torch_fidelity"]
    settings = torch_fidelity_settings(case.weights) | {
        "input1": str(case.generated),
        "input2": str(case.real),
    }
    network = create_feature_extractor(
        settings.pop("feature_extractor"), ["2048", "logits_unbiased"], **settings
    )
    theirs, real = (extract_featuresdict_from_input_id(i, network, **settings) for i in (1, 2))
    x, y, size = theirs["2048"], real["2048"], min(len(ours["features"]), len(reference["features"]))
    for arithmetic, a, b in (("in float32", x, y), ("in float64", x.double(), y.double())):
        kid = kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=size, verbose=False)
        found = kid["kernel_inception_distance_mean"]
        yield Row("KID", KERNEL, f"{label}, {arithmetic}", found, case.value("kid", "torch_fidelity"))
    for splits in (1, 10):
        found = isc_features_to_metric(theirs["logits_unbiased"], splits)["inception_score_mean"]
        value = inception_score(ours["logits"], splits=splits).value
        yield Row("Inception Score", _score(splits), label, found, value)
    prc = prc_features_to_metric(x, y, verbose=False)
    for name in ("precision", "recall"):
        yield Row(name, (BALLS[0].format(3), BALLS[1]), label, prc[name], case.value(name, "torch_fidelity"))


def _score(splits: int) -> tuple[str, str]:
    return SCORE[0].format(splits, "s" if splits > 1 else ""), SCORE[1]


def torchmetrics_rows(case: Case) -> Iterator[Row]:
    """Yield torchmetrics' KID and Inception Score with its own network."""
    from torchmetrics.image.inception import InceptionScore
    from torchmetrics.image.kid import KernelInceptionDistance

    label, (ours, reference) = OTHERS[3].label, case.ours["torchmetrics"]
    size = min(len(ours["features"]), len(reference["features"]))
    kid = KernelInceptionDistance(torchmetrics_network(case.weights), subsets=1, subset_size=size)
    score = InceptionScore(torchmetrics_network(case.weights, "logits_unbiased"), splits=1)
    for batch in batches(case.generated):
        kid.update(batch, real=False)
        score.update(batch)
    for batch in batches(case.real):
        kid.update(batch, real=True)
    found = float(kid.compute()[0])
    yield Row("KID", KERNEL, f"{label}, in float32", found, case.value("kid", "torchmetrics"))
    definition = _score(1)
    found = float(score.compute()[0])
    yield Row(
        "Inception Score", definition, f"{label}, in float32", found, inception_score(ours["logits"]).value
    )


def clean_fid_rows(case: Case) -> Iterator[Row]:
    """Yield clean-fid's KID of its own features."""
    from cleanfid.fid import kernel_distance

    other = OTHERS[2]
    x, y = (other.features(folder, case.weights).astype(np.float64) for folder in (case.generated, case.real))
    found = kernel_distance(y, x, num_subsets=1, max_subset_size=len(x))
    yield Row("KID", KERNEL, f"{other.label}, in float64", found, case.value("kid", other.preprocess))


def prdc_rows(case: Case) -> Iterator[Row]:
    """Yield the four numbers of prdc, whose k is 5 for all, on our features."""
    try:
        from prdc import compute_prdc

        label = f"prdc {version('prdc')}"
    except (ImportError, PackageNotFoundError):
        print("prdc is not installed: its rows are left out", file=sys.stderr)
        return
    x, y = (side["features"].astype(np.float64) for side in case.ours["torch_fidelity"])
    theirs, reference = compute_prdc(y, x, nearest_k=5), neighbour_reference(y, 5)
    for name, function in (("precision", precision), ("recall", recall)):
        yield Row(name, (BALLS[0].format(5), BALLS[1]), label, theirs[name], function(x, reference).value)
    for name, definition in (("density", DENSITY), ("coverage", COVERAGE)):
        yield Row(name, definition, label, theirs[name], case.value(name, "torch_fidelity"))


def measured(case: Case) -> list[Row]:
    """Return all rows; what the other programs print is kept from the table."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123 - no file
        return [
            *frechet_rows(case),
            *clean_fid_rows(case),
            *torchmetrics_rows(case),
            *torch_fidelity_rows(case),
            *prdc_rows(case),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of real images; synthetic ones otherwise")
    parser.add_argument("--weights", type=Path, help="the published weights' file; random ones otherwise")
    given: Any = parser.parse_args()
    warnings.simplefilter("ignore")  # the others' own
    synthetic = synthetic_images(48, seed=1, contrast=0.8), synthetic_images(48, seed=2)
    generated, real = photographs(given.images) if given.images else synthetic
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = given.weights or save_random_inception(folder / "random.pth")
        ours = {other.preprocess: our_outputs(weights, other.preprocess, generated, real) for other in OTHERS}
        places = write_images(folder / "generated", generated), write_images(folder / "real", real)
        rows = measured(Case(*places, weights, ours))  # type: ignore[arg-type]
    print(f"{len(generated)} images against {len(real)}, {real.shape[1]} pixels")
    print()
    print("| metric | definition | source | program | its value | ours | relative difference |")
    print("|---|---|---|---|---|---|---|")
    print(*sorted(rows, key=lambda row: ORDER.index(row.metric)), sep="\n")


if __name__ == "__main__":
    main()
