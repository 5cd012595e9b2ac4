"""The prompts of a run and the images behind them, found and checked before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sd2eval.checkpoints.sources import local_path
from sd2eval.config import CheckpointConfig, DataConfig, PromptsConfig
from sd2eval.errors import InputError
from sd2eval.prompts import load_captions, missing_images, missing_message, select
from sd2eval.records import Prompt


@dataclass(frozen=True)
class Dataset:
    """What a sweep reads."""

    prompts: list[Prompt]
    """The run's captions, in the order of their draw."""
    captions_digest: str
    """SHA-256 of the caption file."""
    image_folder: Path
    reference: list[Path]
    """All image files of the caption file that are there."""

    def image(self, prompt: Prompt) -> Path:
        """Return the file of the image a caption was written for."""
        return self.image_folder / prompt.image_file


def load_dataset(data: DataConfig, wanted: PromptsConfig, definitions: Sequence[CheckpointConfig]) -> Dataset:
    """Read the captions, draw the prompts and find the images.

    Raises:
        InputError: a file is missing or malformed, or images are missing that the run needs.
    """
    if data.root is None:
        raise InputError(
            f"data.root: say where the data set is: data.root=DIR, the folder that holds {data.images}/"
        )
    root = local_path(data.root)
    if root is None:
        raise InputError(f"data.root={data.root}: no such folder")
    if not root.is_dir():
        raise InputError(f"data.root={data.root}: is a file; a folder is needed")
    if not (root / data.captions).is_file():
        raise InputError(f"data.captions={data.captions}: no such file in data.root={data.root}")
    captions = load_captions(root / data.captions)
    n = min(wanted.most or len(captions.prompts), len(captions.prompts)) if wanted.auto else wanted.n
    prompts = select(captions.prompts, captions.digest, wanted.seed, int(n))
    folder = root / data.images
    missing = set(missing_images(captions.image_files, folder))
    if missing and (not data.allow_missing or len(missing) == len(captions.image_files)):
        raise InputError(missing_message(sorted(missing), captions.image_files, folder))
    _require_own_images(prompts, missing, definitions)
    reference = [folder / name for name in captions.image_files if name not in missing]
    return Dataset(prompts, captions.digest, folder, reference)


def _require_own_images(
    prompts: Sequence[Prompt], missing: set[str], definitions: Sequence[CheckpointConfig]
) -> None:
    """An image-conditioned checkpoint cannot do without the caption's own image."""
    without = sum(prompt.image_file in missing for prompt in prompts)
    needing = [definition.name for definition in definitions if definition.conditioning != "text"]
    if without and needing:
        raise InputError(
            f"{without} of {len(prompts)} prompts have no image, but {', '.join(needing)} start from it; "
            "choose a complete caption file with data.captions=FILE, or other checkpoints"
        )
