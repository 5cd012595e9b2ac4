"""Where weights come from: a single published file or a diffusers folder, here or on the hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

import sd2eval
from sd2eval.checkpoints.architecture import BUNDLED
from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError

PACKAGE_PREFIX = "package:"
FILE_SUFFIXES = (".safetensors", ".ckpt")
WEIGHT_SUFFIXES = (".safetensors", ".json", ".gz", ".txt")

COMPONENTS = {
    "text": ("unet", "vae", "text_encoder", "tokenizer"),
    "depth": ("unet", "vae", "text_encoder", "tokenizer", "depth_estimator"),
    "inpainting": ("unet", "vae", "text_encoder", "tokenizer"),
    "upscaling": ("unet", "vae", "text_encoder", "tokenizer"),
}


@dataclass(frozen=True)
class Sources:
    """The files of one checkpoint on this machine."""

    file: Path | None
    """A single file in the published layout; None for a checkpoint in diffusers layout."""
    folders: dict[str, Path]
    """Components in diffusers layout: all of them, or those that replace parts of the single file."""
    others: dict[str, Path] = field(default_factory=dict)
    """What else the numbers depend on: `lora`, and an `architecture` that did not come with the package."""


def local_path(text: str) -> Path | None:
    """Return the folder or file that `text` names on this machine, or None for anything else (a hub id).

    `package:mini/weights` is a path inside the installed sd2eval package.
    """
    if text.startswith(PACKAGE_PREFIX):
        return Path(sd2eval.__path__[0], text.removeprefix(PACKAGE_PREFIX))
    path = Path(text).expanduser()
    return path if path.exists() else None


def resolve(definition: CheckpointConfig) -> Sources:
    """Find a checkpoint's files; what is not on this machine is fetched from the hub.

    Raises:
        InputError: the source is neither here nor on the hub, or a part is missing in it.
    """
    others = _others(definition)
    root = local_path(definition.source)
    if root is None:
        _refuse_path(definition)
        root = _fetched(definition)
    elif root.is_dir() and definition.file and (root / definition.file).is_file():
        root = root / definition.file
    if root.is_file():
        if root.suffix not in FILE_SUFFIXES:
            raise InputError(f"{root}: a checkpoint in one file ends in {' or '.join(FILE_SUFFIXES)}")
        return Sources(root, _replaced(definition), others)
    return Sources(None, _folders(definition, root), others)


def _fetched(definition: CheckpointConfig) -> Path:
    if definition.file:
        return _fetch_file(definition)
    return _fetch(
        definition,
        [name for name in COMPONENTS[definition.conditioning] if name not in definition.components],
    )


def _refuse_path(definition: CheckpointConfig) -> None:
    """Say that a file is not there, instead of asking the hub for it."""
    source = definition.source
    if source.endswith(FILE_SUFFIXES) or source.startswith((".", "/", "~")):
        raise InputError(f"checkpoint.source={source}: no such file or folder")


def _others(definition: CheckpointConfig) -> dict[str, Path]:
    others = {}
    if definition.lora is not None:
        path = local_path(definition.lora)
        if path is None or not path.is_file():
            raise InputError(f"checkpoint.lora={definition.lora}: no such file")
        others["lora"] = path
    if definition.architecture and not (BUNDLED / definition.architecture).is_dir():
        path = Path(definition.architecture)
        if path.exists():  # otherwise loading it says what is allowed
            others["architecture"] = path
    return others


def _replaced(definition: CheckpointConfig) -> dict[str, Path]:
    return {name: _component(definition, name, override) for name, override in definition.components.items()}


def _component(definition: CheckpointConfig, name: str, override: str) -> Path:
    folder = local_path(override)
    if folder is None or not folder.is_dir():
        raise InputError(f"checkpoint.components.{name}={override}: no such folder (for '{definition.name}')")
    return folder


def _folders(definition: CheckpointConfig, root: Path) -> dict[str, Path]:
    folders = _replaced(definition)
    for name in COMPONENTS[definition.conditioning]:
        if name in folders:
            continue
        if not (root / name).is_dir():
            wanted = f"{definition.file}, or " if definition.file else ""
            raise InputError(
                f"checkpoint '{definition.name}': no folder {root / name} for its {name}; checkpoint.source "
                f"must be a file in the published layout, a folder with {wanted}unet/, vae/, ... or a hub id"
            )
        folders[name] = root / name
    return folders


def digest(sources: Sources) -> str:
    """Return the SHA-256 that names a checkpoint: of its single file, or over everything that is loaded.

    A single file with nothing replaced has its own SHA-256, so that it can be compared with published ones.
    """
    if sources.file and not sources.folders and not sources.others:
        return file_digest(sources.file)
    total = hashlib.sha256()
    files = {
        f"{name}/{file.name}": file
        for name, folder in sources.folders.items()
        for file in _weight_files(folder)
    }
    files |= {f"{name}/{file.name}": file for name, path in sources.others.items() for file in _inside(path)}
    if sources.file:
        files["file"] = sources.file
    for name in sorted(files):
        total.update(f"{name}\0".encode())
        total.update(bytes.fromhex(file_digest(files[name])))
    return total.hexdigest()


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _inside(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


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


def _fetch_file(definition: CheckpointConfig) -> Path:
    assert definition.file is not None
    return Path(hf_hub_download(definition.source, definition.file, revision=definition.revision))
