"""Identity clusters: found where they are, read by majority, with errors of what was held out."""

from __future__ import annotations

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.probes.clusters import make_clusters, read_clusters
from sd2eval.probes.shares import corrected

TERMS = ("red", "green", "blue", "grey")


def images(rng: np.random.Generator, per_term: int, apart: float = 6.0, nuisance: float = 25.0):
    y = np.repeat(np.arange(4), per_term)
    x = rng.normal(size=(len(y), 10))
    x[:, :4] += apart * np.eye(4)[y]
    x[:, 5] *= nuisance
    return x, [TERMS[k] for k in y]


def test_clusters_are_the_terms_not_what_varies_within_them() -> None:
    rng = np.random.default_rng(0)
    x, terms = images(rng, 20)
    clusters = make_clusters(x, terms, 4)
    reading = read_clusters(clusters, x, terms, terms)
    assert sorted(reading.of_cluster.tolist()) == [0, 1, 2, 3]
    later, truth = images(rng, 100)
    answers = reading.answers(clusters, later)
    right = np.array([TERMS[a] == t if a < 4 else False for a, t in zip(answers, truth, strict=True)])
    assert right.mean() > 0.9
    assert reading.errors.error < 0.03


def test_a_planted_distribution_is_recovered() -> None:
    rng = np.random.default_rng(1)
    x, terms = images(rng, 15, apart=3.5)
    clusters = make_clusters(x, terms, 8)
    reading = read_clusters(clusters, x, terms, terms)
    later, _ = images(rng, 100, apart=3.5)
    kept = np.concatenate([np.arange(60), 100 + np.arange(25), 200 + np.arange(15)])
    found = corrected(reading.answers(clusters, later[kept]), reading.errors)
    for one, share in zip(found, (0.6, 0.25, 0.15, 0.0), strict=True):
        assert one.low <= share <= one.high


def test_errors_are_those_of_images_that_were_held_out() -> None:
    """Of terms without meaning, 16 clusters would be read right in most of the 48 images they hold."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(48, 30))
    terms = [TERMS[k] for k in rng.permutation(np.arange(48) % 4)]
    clusters = make_clusters(x, terms, 16)
    reading = read_clusters(clusters, x, terms, terms, sure=0.0)
    assert reading.errors.error > 0.5


def test_far_images_belong_to_no_cluster() -> None:
    rng = np.random.default_rng(3)
    x, terms = images(rng, 20)
    clusters = make_clusters(x, terms, 4)
    assert (clusters.nearest(x) < 4).mean() > 0.9
    assert (clusters.nearest(x + 300) == 4).all()


def test_what_a_prompt_leaves_unsaid_is_clustered_and_not_read() -> None:
    rng = np.random.default_rng(4)
    x, terms = images(rng, 20)
    labels = [term if term != "grey" else "" for term in terms]
    clusters = make_clusters(x, terms, 4)
    reading = read_clusters(clusters, x, terms, labels)
    assert reading.names == ("red", "green", "blue")
    assert reading.errors.counts.sum() == 60
    grey = [term == "grey" for term in terms]
    assert (reading.answers(clusters, x[grey]) == 3).mean() > 0.9


def test_a_cluster_of_two_terms_alike_has_no_reading() -> None:
    rng = np.random.default_rng(5)
    x, terms = images(rng, 20)
    mixed = ["warm" if at % 2 else "cold" for at in range(80)]
    reading = read_clusters(make_clusters(x, terms, 4), x, terms, mixed)
    assert (reading.of_cluster == 2).all()


def test_too_few_identity_images_are_refused() -> None:
    rng = np.random.default_rng(6)
    x, terms = images(rng, 5)
    with pytest.raises(InputError, match="7 clusters need at least 21 identity images, got 20"):
        make_clusters(x, terms, 7)
