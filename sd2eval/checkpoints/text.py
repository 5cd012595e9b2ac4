"""Captions to the hidden states that condition a UNet.

Stable Diffusion v2 takes the penultimate layer of OpenCLIP's text tower, then its final layer norm, all
positions, no projection, no padding mask; ids come from `open_clip`'s tokenizer, padded with 0. The
transformers tokenizer would treat "!" as padding and skip the clean-up of the text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sd2eval.checkpoints.layout import open_clip_names
from sd2eval.errors import InputError

OPEN_CLIP_FILE = "open_clip_model.safetensors"
"""OpenCLIP's state dict in a text encoder folder."""

Tokenize = Callable[[Sequence[str]], tuple[torch.Tensor, list[bool]]]
"""Texts to ids [N, context] (int64) and, per text, whether it was cut at the context."""


@dataclass(frozen=True)
class TextEncoder:
    """Tokenizer and text tower of one checkpoint."""

    model: Any
    tokenize: Tokenize

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], batch_size: int = 64) -> tuple[torch.Tensor, list[bool]]:
        """Encode texts.

        Returns:
            Hidden states [N, context, width] in the model's dtype, and whether each text was truncated.
        """
        ids, truncated = self.tokenize(texts)
        device = self.model.device
        chunks = [self.model(input_ids=chunk.to(device))[0] for chunk in torch.split(ids, batch_size)]
        return torch.cat(chunks), truncated


def text_encoder(model: Any, tokenizer_folder: Path | None, kind: str) -> TextEncoder:
    """Put a text model and its tokenizer together.

    Args:
        model: a CLIPTextModel.
        tokenizer_folder: the tokenizer that belongs to it; None for the published vocabulary.
        kind: `open_clip` (SD2: open_clip's tokenizer) or `clip` (v1.5: the transformers tokenizer).

    Raises:
        InputError: the tokenizer is none, or has another vocabulary than the model.
    """
    make = _open_clip_tokenize if kind == "open_clip" else _clip_tokenize
    tokenize = make(tokenizer_folder, model.config.vocab_size, model.config.max_position_embeddings)
    return TextEncoder(model.eval().requires_grad_(False), tokenize)


def load_open_clip(folder: Path) -> Any:
    """Load a folder that holds OpenCLIP's state dict and its text config; see `from_open_clip`."""
    return from_open_clip(
        load_file(folder / OPEN_CLIP_FILE), json.loads((folder / "config.json").read_text())
    )


def from_open_clip(state: dict[str, torch.Tensor], text_config: dict[str, Any]) -> Any:
    """Build the CLIPTextModel that computes OpenCLIP's penultimate layer followed by `ln_final`.

    Args:
        state: OpenCLIP state dict; keys outside the text tower are ignored.
        text_config: OpenCLIP's `text_cfg` (context_length, vocab_size, width, heads, layers).

    Returns:
        transformers CLIPTextModel, float32, with one layer less than the tower.
    """
    config = penultimate_config(text_config)
    names = open_clip_names(config.num_hidden_layers, prefix="")
    model = CLIPTextModel(config)
    model.load_state_dict({ours: piece.of(state[piece.name]).float() for ours, piece in names.items()})
    return model


def penultimate_config(text_config: dict[str, Any]) -> CLIPTextConfig:
    """Return transformers' config of an OpenCLIP text tower (`text_cfg`) without its last layer."""
    return CLIPTextConfig(
        vocab_size=text_config["vocab_size"],
        hidden_size=text_config["width"],
        intermediate_size=4 * text_config["width"],
        num_hidden_layers=text_config["layers"] - 1,
        num_attention_heads=text_config["heads"],
        max_position_embeddings=text_config["context_length"],
        hidden_act="gelu",  # OpenCLIP's own towers; only OpenAI's weights use quick_gelu
        bos_token_id=text_config["vocab_size"] - 2,
        eos_token_id=text_config["vocab_size"] - 1,
        pad_token_id=0,
    )


def _open_clip_tokenize(folder: Path | None, vocabulary: int, context: int) -> Tokenize:
    own = sorted(folder.glob("bpe_*.txt.gz")) if folder else []
    if folder and not own and not (folder / "vocab.json").exists():
        raise InputError(f"{folder}: is no tokenizer (neither bpe_*.txt.gz nor vocab.json in it)")
    # Published tokenizer folders hold the vocabulary that open_clip ships.
    tokenizer = SimpleTokenizer(str(own[0]), context_length=context) if own else SimpleTokenizer()
    if tokenizer.vocab_size != vocabulary:
        raise InputError(
            f"{own[0] if own else folder or 'checkpoint.components.tokenizer'}: a tokenizer of "
            f"{tokenizer.vocab_size} tokens, but the text encoder has {vocabulary}"
        )

    def tokenize(texts: Sequence[str]) -> tuple[torch.Tensor, list[bool]]:
        truncated = [len(tokenizer.encode(text)) + 2 > context for text in texts]  # plus start and end
        return tokenizer(list(texts), context_length=context), truncated

    return tokenize


def _clip_tokenize(folder: Path | None, vocabulary: int, context: int) -> Tokenize:
    if folder and not (folder / "vocab.json").exists() and not (folder / "tokenizer.json").exists():
        raise InputError(f"{folder}: is no tokenizer (neither vocab.json nor tokenizer.json in it)")
    tokenizer = (
        CLIPTokenizer.from_pretrained(folder, local_files_only=True) if folder else published_clip_tokenizer()
    )
    if len(tokenizer) != vocabulary:
        raise InputError(
            f"{folder or 'checkpoint.components.tokenizer'}: a tokenizer of {len(tokenizer)} tokens, but the "
            f"text encoder has {vocabulary}"
        )

    def tokenize(texts: Sequence[str]) -> tuple[torch.Tensor, list[bool]]:
        whole = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        cut = tokenizer(
            list(texts), truncation=True, max_length=context, padding="max_length", return_tensors="pt"
        )
        return cut["input_ids"], [len(ids) > context for ids in whole]

    return tokenize


def published_clip_tokenizer() -> Any:
    """Return the tokenizer of `openai/clip-vit-large-patch14`, from the vocabulary that open_clip ships."""
    shipped = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): index for token, index in shipped.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(shipped.bpe_ranks))
