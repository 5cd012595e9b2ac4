from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[np.float64]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20221124)


@pytest.fixture
def cloud(rng: np.random.Generator) -> Callable[..., Array]:
    """Samples whose mean is `mean` and whose unbiased covariance is `factor @ factor.T`, exactly."""

    def make(mean: Array, factor: Array, n: int) -> Array:
        z = rng.normal(size=(n, factor.shape[1]))
        q, _ = np.linalg.qr(z - z.mean(axis=0))
        return mean + np.sqrt(n - 1) * (q - q.mean(axis=0)) @ factor.T

    return make
