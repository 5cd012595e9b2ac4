"""ImageReward v1.0 (Xu et al. 2023): BLIP looks at image and caption together, a head gives their reward.

The network and the names of its tensors are those of the authors' `ImageReward.py` and BLIP's `vit.py` and
`med.py`; it is built of transformers' BLIP. The head is linear throughout, as published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import open_clip
import torch
from PIL import Image
from torch import nn
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors._published import obtained, only_own_preprocessing, published_file, tensors
from sd2eval.extractors.base import Extractor, Images, local_source, ready, state_digest, values

FILE = "ImageReward.pt"
VOCABULARY = "vocab.txt"
VOCABULARY_WEIGHTS = "bert_base_uncased_vocabulary"
"""Name of the published vocabulary, which is fetched where none lies beside the weights."""
SPECIAL = ("[DEC]", "[ENC]")
"""BLIP's own tokens, which follow BERT's."""
CONTEXT = 35
"""Tokens of a caption; what is longer is cut, what is shorter is filled up and masked."""
HEAD_WIDTH = 64
"""Of an attention head, in both towers."""
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
"""Of the raw reward, by which the published one is normalised."""
HEAD_LAYERS = (0, 2, 4, 6, 7)
"""Linear layers of the head; dropout takes the places between."""

VISION, TEXT = "blip.visual_encoder.", "blip.text_encoder."
BLOCK = {
    "self_attn.qkv.": "attn.qkv.",
    "self_attn.projection.": "attn.proj.",
    "layer_norm1.": "norm1.",
    "layer_norm2.": "norm2.",
    "mlp.": "mlp.",
}
PREFIXES = {
    "vision.embeddings.class_embedding": f"{VISION}cls_token",
    "vision.embeddings.position_embedding": f"{VISION}pos_embed",
    "vision.embeddings.patch_embedding.": f"{VISION}patch_embed.proj.",
    "vision.post_layernorm.": f"{VISION}norm.",
    "text.": TEXT,
    "head.": "mlp.layers.",
}
UNUSED = (
    f"{TEXT}embeddings.position_ids",
    *(f"blip.{part}_proj.{kind}" for part in ("vision", "text") for kind in ("weight", "bias")),
)
"""A counter, and BLIP's projections to the space where images and texts are compared."""


class Reward(nn.Module):
    """Both towers and the head."""

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig, widths: Sequence[int]) -> None:
        super().__init__()
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.head = nn.ModuleDict(
            {
                str(layer): nn.Linear(widths[index], widths[index + 1])
                for index, layer in enumerate(HEAD_LAYERS)
            }
        )

    def forward(self, pixels: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the normalised reward [N] of images [N, 3, R, R] and captions [N, 35], where `mask` is 1."""
        seen = self.vision(pixel_values=pixels).last_hidden_state
        read = self.text(input_ids=tokens, attention_mask=mask, encoder_hidden_states=seen)
        reward = read.last_hidden_state[:, 0]
        for layer in self.head.values():
            reward = layer(reward)
        normalised: torch.Tensor = (reward.squeeze(-1).float() - MEAN) / DEVIATION
        return normalised


def needs(config: ExtractorConfig) -> tuple[str, ...]:
    """Return the published weights that `load` fetches."""
    if not config.source:
        return () if config.pretrained is None else (config.pretrained, VOCABULARY_WEIGHTS)
    path = local_source(config)
    beside = (path if path.is_dir() else path.parent) / VOCABULARY
    return () if beside.is_file() else (VOCABULARY_WEIGHTS,)


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load it from the published file; `vocab.txt` of BERT is taken from beside it, else fetched once.

    Raises:
        InputError: the file is not this network's, or the vocabulary not its own.
    """
    only_own_preprocessing(config)
    file = published_file(config, FILE)
    model = network(WeightsFile(file))
    vocabulary = file.with_name(VOCABULARY)
    if not vocabulary.is_file():
        vocabulary = obtained(config, VOCABULARY_WEIGHTS)
    tokenizer = tokens_of(vocabulary, model.text.config.vocab_size)
    digest = hashlib.sha256(state_digest(model).encode() + vocabulary.read_bytes()).hexdigest()
    transform = open_clip.image_transform(model.vision.config.image_size, is_train=False)
    model, dtype = ready(model, config, device), getattr(torch, config.dtype)

    def rewards(batch: Images, captions: Sequence[str]) -> torch.Tensor:
        pixels = torch.stack([transform(Image.fromarray(image)) for image in batch])
        read = tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt"
        ).to(device)
        found: torch.Tensor = model(pixels.to(device, dtype), read["input_ids"], read["attention_mask"])
        return found

    return Extractor(name=config.name, digest=digest, pairs=values(rewards, config.batch_size))


def network(weights: WeightsFile) -> Reward:
    """Return the network with a file's tensors; its sizes are read off their shapes.

    Raises:
        InputError: a tensor is missing, of another shape, or has no place.
    """
    configs = _sizes(weights)
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in Reward(*configs).state_dict().items()}
    model = Reward(*configs)
    model.load_state_dict(tensors(weights, expected, {name: _published(name) for name in expected}, UNUSED))
    return model


def tokens_of(vocabulary: Path, count: int) -> BertTokenizer:
    """Return BERT's uncased tokenizer with BLIP's two tokens behind its own.

    Args:
        vocabulary: a token per line.
        count: of tokens that the network knows.

    Raises:
        InputError: it is not that vocabulary.
    """
    # Not `splitlines`: some tokens are what Unicode takes for the end of a line.
    lines = vocabulary.read_bytes().decode(errors="replace").removesuffix("\n").replace("\r", "").split("\n")
    tokens = {token: index for index, token in enumerate((*lines, *SPECIAL))}
    if len(tokens) != count or not {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} < tokens.keys():
        raise InputError(
            f"{vocabulary}: is not the vocabulary of this network ({len(lines)} tokens, expected "
            f"{count - len(SPECIAL)} with [PAD], [UNK], [CLS], [SEP] and [MASK])"
        )
    first, second = SPECIAL
    return BertTokenizer(vocab=tokens, bos_token=first, extra_special_tokens=[second])


def _sizes(weights: WeightsFile) -> tuple[BlipVisionConfig, BlipTextConfig, list[int]]:
    """Return the configs of both towers and the widths of the head, read off a file's shapes.

    Raises:
        InputError: it is another network's.
    """

    def shape(name: str, dimensions: int = 2) -> tuple[int, ...]:
        found = weights.shapes.get(name, ())
        if len(found) != dimensions:
            raise InputError(f"{weights.path}: is no ImageReward (no {name} of {dimensions} dimensions)")
        return found

    width, _, patch, _ = shape(f"{VISION}patch_embed.proj.weight", 4)
    places = shape(f"{VISION}pos_embed", 3)[1] - 1
    vision = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=shape(f"{VISION}blocks.0.mlp.fc1.weight")[0],
        num_hidden_layers=_layers(weights.shapes, f"{VISION}blocks."),
        num_attention_heads=width // HEAD_WIDTH,
        image_size=patch * round(places**0.5),
        patch_size=patch,
        layer_norm_eps=1e-6,  # transformers' default is another
    )
    count, hidden = shape(f"{TEXT}embeddings.word_embeddings.weight")
    text = BlipTextConfig(
        vocab_size=count,
        hidden_size=hidden,
        encoder_hidden_size=width,
        intermediate_size=shape(f"{TEXT}encoder.layer.0.intermediate.dense.weight")[0],
        num_hidden_layers=_layers(weights.shapes, f"{TEXT}encoder.layer."),
        num_attention_heads=hidden // HEAD_WIDTH,  # 12 as in BERT; transformers' default is 8
        max_position_embeddings=shape(f"{TEXT}embeddings.position_embeddings.weight")[0],
        bos_token_id=count - len(SPECIAL),
        sep_token_id=None,
    )
    outs = [shape(f"mlp.layers.{layer}.weight")[0] for layer in HEAD_LAYERS]
    return vision, text, [hidden, *outs]


def _layers(names: Mapping[str, object], prefix: str) -> int:
    """Return how many numbers follow a prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)})


def _published(name: str) -> str:
    """Return what the published file calls one of the network's tensors."""
    layer = "vision.encoder.layers."
    if name.startswith(layer):
        index, _, rest = name.removeprefix(layer).partition(".")
        ours = next(prefix for prefix in BLOCK if rest.startswith(prefix))
        return f"{VISION}blocks.{index}.{BLOCK[ours]}{rest.removeprefix(ours)}"
    ours = next(prefix for prefix in PREFIXES if name.startswith(prefix))
    return PREFIXES[ours] + name.removeprefix(ours)
