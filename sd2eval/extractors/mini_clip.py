"""The mini world's CLIP, in the place of OpenCLIP's ViT-g/14."""

from __future__ import annotations

import json

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file

from sd2eval.checkpoints.conditioning import to_signed
from sd2eval.config import ExtractorConfig
from sd2eval.errors import InputError
from sd2eval.extractors.base import Extractor, Images, local_source
from sd2eval.extractors.open_clip import towers


def load(config: ExtractorConfig, device: torch.device) -> Extractor:
    """Load it from its folder; its tokenizer lies beside that."""
    folder = local_source(config)
    settings = json.loads((folder / "config.json").read_text())
    preprocess = settings.pop("preprocess")
    model = open_clip.model.CLIP(**settings)
    state = load_file(folder / "open_clip_model.safetensors")
    model.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    merges = next(folder.parent.glob("tokenizer/bpe_*.txt.gz"))
    tokenizer = SimpleTokenizer(str(merges), context_length=settings["text_cfg"]["context_length"])
    mean, std = (torch.tensor(preprocess[key]).view(1, 3, 1, 1) for key in ("mean", "std"))

    size = settings["vision_cfg"]["image_size"]

    def prepare(batch: Images) -> torch.Tensor:
        if batch.shape[1:3] != (size, size):
            raise InputError(
                f"extractor '{config.name}': takes {size}x{size} images and does not resize, got "
                f"{batch.shape[2]}x{batch.shape[1]}; choose protocol.fit=crop and protocol.resolution={size}"
            )
        return ((to_signed(batch) + 1.0) / 2.0 - mean) / std

    return towers(config, model, prepare, tokenizer, device)
