"""Small networks on a CLIP's image embedding that give one number per image, as the card's data was filtered.

`name` says which head (`HEADS`), `model` and `pretrained` its CLIP, as for kind open_clip. The heads were
trained on embeddings of unit length, and get them. Two files are needed. With `source: null` both come from
the table of published weights. A `source` that is a folder holds both, under the names that the table gives
them; one that is a file is the head, and the CLIP comes from the table. The output is `value`.

- `aesthetic_v2` (sac+logos+ava1-l14-linearMSE): the card's "aesthetic score >= 4.5" links to it. Five linear
  layers with nothing between them, trained on ratings from 1 to 10.
- `aesthetic_v1` (sa_0_4_vit_l_14_linear): LAION's earlier one, a single linear layer, quoted by others.
- `nsfw_l_14`: the card's `punsafe`, as LAION-5B was labelled. Published as a Keras model; its authors' own
  conversion to PyTorch is read here.
- `nsfw_h_14`: its successor on ViT-H/14, a regression on 0 and 1 without a sigmoid: no probability.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sd2eval import words
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors import open_clip
from sd2eval.extractors._weights import fill
from sd2eval.extractors.base import Extractor, Images, local_source, ready, state_digest, values
from sd2eval.weights.models import obtain
from sd2eval.weights.published import published


class Layers(nn.Module):
    """Layers one after the other, under the names of the published files: `layers.0`, `layers.1`, ..."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings [N, d] to [N, 1]."""
        return self.layers(embeddings)  # type: ignore[no-any-return]


class Scaling(nn.Module):
    """Each component by its mean and variance over the training set (Keras' Normalization)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings [N, width] to the same."""
        return (embeddings - self.mean) / (self.variance.sqrt() + 1e-10)  # type: ignore[operator]


class Unsafe(nn.Module):
    """LAION's classifier on ViT-L/14, under the names of its published file; gives a probability."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = Scaling(768)
        self.linear_1, self.linear_2 = nn.Linear(768, 64), nn.Linear(64, 512)
        self.linear_3, self.linear_4 = nn.Linear(512, 256), nn.Linear(256, 1)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings [N, 768] to [N, 1] in 0..1."""
        hidden = self.norm(embeddings)
        for layer in (self.linear_1, self.linear_2, self.linear_3):
            hidden = torch.relu(layer(hidden))
        return torch.sigmoid(self.linear_4(hidden))


def _with_places(widths: tuple[int, ...], *between: nn.Module) -> list[nn.Module]:
    """Return linear layers of these widths, each followed by what stands between."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), *between]
    return layers


def _aesthetic_v2() -> nn.Module:
    # A dropout after each of the first three layers; it does nothing after training.
    tail = (nn.Linear(64, 16), nn.Linear(16, 1))
    return Layers(*_with_places((768, 1024, 128, 64), nn.Identity()), *tail)


def _nsfw_h_14() -> nn.Module:
    tail = (nn.Linear(128, 16), nn.Linear(16, 1))
    return Layers(*_with_places((1024, 1024, 2048, 1024, 256, 128), nn.ReLU(), nn.Identity()), *tail)


HEADS: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "aesthetic_v1": (768, lambda: nn.Linear(768, 1)),
    "aesthetic_v2": (768, _aesthetic_v2),
    "nsfw_l_14": (768, Unsafe),
    "nsfw_h_14": (1024, _nsfw_h_14),
}
"""Width of the embedding and the network, by the name of the extractor and of its published weights."""


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load a head and its CLIP's image tower; `value` [N] float32, computed in float32 from the embedding.

    Raises:
        InputError: no such head; its CLIP's embedding has another width; a file is missing or damaged, or
            belongs to another network.
    """
    width, build = HEADS[words.one_of(config.name, HEADS, "clip_head extractor")]
    clip, prepare = open_clip.architecture(config)
    head = build()
    if clip.visual.output_dim != width:
        raise InputError(
            f"extractor '{config.name}': its head takes embeddings of {width} numbers, {config.model} gives "
            f"{clip.visual.output_dim}"
        )
    head_file, clip_file = _files(config)
    fill(head, head_file)
    fill(clip, clip_file)
    digest = state_digest(nn.ModuleDict({"clip": clip.visual, "head": head}))
    tower, dtype = ready(clip.visual, config, device), getattr(torch, config.dtype)
    head = head.to(device).eval().requires_grad_(False)

    def judge(batch: Images) -> Tensor:
        embeddings = normalize(tower(prepare(batch).to(device, dtype)), dim=-1)
        return head(embeddings.float()).squeeze(1)  # type: ignore[no-any-return]

    return Extractor(name=config.name, digest=digest, images=values(judge, config.batch_size))


def needs(config: ExtractorConfig) -> tuple[str, ...]:
    """Return the published weights that `load` fetches."""
    tower = open_clip.published_name(config)
    if config.source is None:
        return config.name, tower
    return (tower,) if local_source(config).is_file() else ()


def _files(config: ExtractorConfig) -> tuple[Path, Path]:
    """Return where the head and its CLIP are, fetched if need be."""
    tower = open_clip.published_name(config)
    if config.source is None:
        return obtain(config.name), obtain(tower)
    source = local_source(config)
    if source.is_file():
        return source, obtain(tower)
    files = [source / published()[name].file for name in (config.name, tower)]
    for file in files:
        if not file.is_file():
            raise InputError(
                f"extractor '{config.name}': no {file.name} in {source}; a folder must hold "
                f"{files[0].name} (the head) and {files[1].name} (its CLIP, that of {tower})"
            )
    return files[0], files[1]
