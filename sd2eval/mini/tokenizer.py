"""The mini family's vocabulary: byte-pair merges in the format of OpenCLIP's ``SimpleTokenizer``."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import open_clip
from open_clip.tokenizer import SimpleTokenizer, bytes_to_unicode
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

from sd2eval.mini import WEIGHTS
from sd2eval.mini.scenes import training_captions

CONTEXT_LENGTH = 32
FILE = Path("tokenizer") / "bpe_mini.txt.gz"

#: 1,024 tokens: 256 bytes, the same 256 at a word's end, the merges, start and end of text.
MAX_MERGES = 1024 - 2 * 256 - 2
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def learn_merges(captions: Iterable[str]) -> list[str]:
    """At most ``MAX_MERGES`` merges ("a b") of lower-cased words, split as ``SimpleTokenizer`` does."""
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.normalizer = Lowercase()
    words = Split(Regex(_WORDS), behavior="removed", invert=True)
    learner.pre_tokenizer = Sequence([words, ByteLevel(add_prefix_space=False, use_regex=False)])
    alphabet = list(bytes_to_unicode().values())
    trainer = BpeTrainer(
        vocab_size=1024 - 2, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(captions, trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [" ".join(pair) for pair in merges][:MAX_MERGES]


def write_tokenizer(out: Path, captions: int = 20_000) -> Path:
    """Learns on the first training captions (English, some Spanish) and writes ``bpe_mini.txt.gz``."""
    merges = learn_merges(training_captions(captions))
    path = out / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(
        ["#version: 0.2 mini world", *merges]
    )  # no final newline: open_clip would read an empty merge
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
    return path


def load_tokenizer(weights: Path = WEIGHTS) -> SimpleTokenizer:
    """``tokenizer(list of texts)`` -> int64 [N, 32], padded with 0 and truncated as OpenCLIP does."""
    return open_clip.SimpleTokenizer(bpe_path=str(weights / FILE), context_length=CONTEXT_LENGTH)
