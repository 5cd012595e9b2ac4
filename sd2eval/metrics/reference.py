"""Features of the reference images, and what the metrics derive from them."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sd2eval.metrics._checks import as_varied_features
from sd2eval.metrics.clip_mmd import ClipReference, clip_reference
from sd2eval.metrics.frechet import FrechetReference, frechet_reference, gaussian
from sd2eval.metrics.kernel import KernelReference, kernel_reference
from sd2eval.metrics.neighbours import DENSITY_K, PRECISION_K, NeighbourReference, neighbour_reference


class Reference:
    """Features of the reference images; what the metrics derive from them is computed once, at first use."""

    def __init__(self, features: ArrayLike) -> None:
        """Take features [m, d], m >= 2, finite, not all rows identical.

        Raises:
            InputError: they are not.
        """
        self.features: NDArray[np.float64] = as_varied_features(features, "reference features")

    def __len__(self) -> int:
        """Return the number of reference images."""
        return len(self.features)

    @cached_property
    def frechet(self) -> FrechetReference:
        """Factorised moments, for `frechet_distance`."""
        return frechet_reference(gaussian(self.features))

    @cached_property
    def kernel(self) -> KernelReference:
        """Features with their mean kernel, for `kernel_distance`."""
        return kernel_reference(self.features)

    @cached_property
    def precision(self) -> NeighbourReference:
        """Features with their balls, for `precision` and `recall`."""
        return neighbour_reference(self.features, PRECISION_K)

    @cached_property
    def density(self) -> NeighbourReference:
        """Features with their balls, for `density` and `coverage`."""
        return neighbour_reference(self.features, DENSITY_K)

    @cached_property
    def clip(self) -> ClipReference:
        """Normalised features with their mean kernel, for `clip_mmd`."""
        return clip_reference(self.features)
