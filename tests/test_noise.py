from __future__ import annotations

import torch

from sd2eval import noise


def test_noise_depends_on_the_caption_and_not_on_its_neighbours() -> None:
    together = noise.normal(7, [11, 12, 13], "latent", (4, 8, 8))
    alone = noise.normal(7, [12], "latent", (4, 8, 8))
    assert torch.equal(together[1], alone[0])


def test_seed_caption_and_stream_each_change_the_noise() -> None:
    draws = [
        noise.normal(seed, [caption], stream, (4, 8, 8))
        for seed, caption, stream in [
            (0, 1, "latent"),
            (1, 1, "latent"),
            (0, 2, "latent"),
            (0, 1, "posterior"),
        ]
    ]
    for i, a in enumerate(draws):
        for b in draws[i + 1 :]:
            assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) < 0.25


def test_noise_is_standard_normal() -> None:
    draw = noise.normal(0, range(200), "latent", (4, 8, 8))
    assert abs(draw.mean()) < 0.02
    assert abs(draw.std() - 1) < 0.02
    assert draw.dtype == torch.float32


def test_neighbouring_captions_do_not_share_a_seed_by_addition() -> None:
    assert noise.generator(1, 23, "latent").initial_seed() != noise.generator(12, 3, "latent").initial_seed()
