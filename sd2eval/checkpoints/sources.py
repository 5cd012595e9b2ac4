"""Where weights come from: a folder in diffusers layout on this machine, or a hub repository fetched once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

import sd2eval
from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError

PACKAGE_PREFIX = "package:"
WEIGHT_SUFFIXES = (".safetensors", ".json", ".gz", ".txt")

COMPONENTS = {
    "text": ("unet", "vae", "text_encoder", "tokenizer"),
    "depth": ("unet", "vae", "text_encoder", "tokenizer", "depth_estimator"),
    "inpainting": ("unet", "vae", "text_encoder", "tokenizer"),
    "upscaling": ("unet", "vae", "text_encoder", "tokenizer"),
}


def local_path(text: str) -> Path | None:
    """Return the folder or file that `text` names on this machine, or None for anything else (a hub id).

    `package:mini/weights` is a path inside the installed sd2eval package.
    """
    if text.startswith(PACKAGE_PREFIX):
        return Path(sd2eval.__path__[0], text.removeprefix(PACKAGE_PREFIX))
    path = Path(text).expanduser()
    return path if path.exists() else None


def component_folders(definition: CheckpointConfig) -> dict[str, Path]:
    """Return the folder of each component that the checkpoint's kind needs, fetched from the hub if need be.

    Raises:
        InputError: the source is neither a folder nor reachable on the hub, or a component is missing in it.
    """
    needed = COMPONENTS[definition.conditioning]
    root = local_path(definition.source)
    if root is None:
        root = _fetch(definition, [name for name in needed if name not in definition.components])
    folders = {}
    for name in needed:
        override = definition.components.get(name)
        folder = local_path(override) if override else root / name
        if folder is None or not folder.is_dir():
            raise InputError(
                f"checkpoint '{definition.name}': no folder {folder or override} for its {name}; "
                "checkpoint.source must be a folder in diffusers layout (unet/, vae/, ...) or a hub id"
            )
        folders[name] = folder
    return folders


def digest(folders: dict[str, Path]) -> str:
    """Return the SHA-256 over names and contents of every weight and config file of a checkpoint."""
    total = hashlib.sha256()
    for component in sorted(folders):
        for file in _weight_files(folders[component]):
            with file.open("rb") as stream:
                total.update(f"{component}/{file.name}\0".encode())
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    """Only what is loaded: half-precision copies and pickles beside the safetensors do not count."""
    files = (file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    return sorted(file for file in files if ".fp16." not in file.name)


def _fetch(definition: CheckpointConfig, components: list[str]) -> Path:
    patterns = [f"{name}/*{suffix}" for name in components for suffix in WEIGHT_SUFFIXES]
    try:
        folder = snapshot_download(
            definition.source,
            revision=definition.revision,
            allow_patterns=patterns,
            ignore_patterns=["*.fp16.*", "*non_ema*"],
        )
    except HFValidationError as error:
        raise InputError(
            f"checkpoint '{definition.name}': source '{definition.source}' is neither a folder on this "
            "machine nor a hub id (owner/name)"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"checkpoint '{definition.name}': cannot fetch '{definition.source}' from the hub ({reason}); "
            "set checkpoint.source to a folder in diffusers layout"
        ) from error
    return Path(folder)
