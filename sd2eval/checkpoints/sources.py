"""Where weights come from: a single published file or a diffusers folder, here or on the hub."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import sd2eval
from sd2eval.checkpoints.architecture import bundled
from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError
from sd2eval.transfer.digests import file_digest
from sd2eval.weights import hub

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
    prediction_type: str | None = None
    """What the scheduler in a diffusers folder says, if there is one."""


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
        if root.suffix.lower() not in FILE_SUFFIXES:
            raise InputError(f"{root}: a checkpoint in one file ends in {' or '.join(FILE_SUFFIXES)}")
        return Sources(root, _replaced(definition), others)
    return Sources(None, _folders(definition, root), others, _scheduled(root))


def _fetched(definition: CheckpointConfig) -> Path:
    if definition.file:
        return hub.file(definition.source, definition.file, definition.revision)
    wanted = [name for name in COMPONENTS[definition.conditioning] if name not in definition.components]
    patterns = [f"{name}/*{suffix}" for name in (*wanted, "scheduler") for suffix in WEIGHT_SUFFIXES]
    return hub.snapshot(definition.source, definition.revision, patterns, ["*.fp16.*", "*non_ema*"])


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
            problem = "no such file" if path is None else "a file is needed"
            raise InputError(f"checkpoint.lora={definition.lora}: {problem}")
        others["lora"] = path
    if definition.architecture and definition.architecture not in bundled():
        path = Path(definition.architecture).expanduser()
        if path.exists():  # otherwise loading it says what is allowed
            others["architecture"] = path
    return others


def _replaced(definition: CheckpointConfig) -> dict[str, Path]:
    return {name: _component(definition, name, override) for name, override in definition.components.items()}


def _component(definition: CheckpointConfig, name: str, override: str) -> Path:
    folder = local_path(override)
    if folder is None or not folder.is_dir():
        problem = "no such folder" if folder is None else "a folder is needed"
        raise InputError(f"checkpoint.components.{name}={override}: {problem} (for '{definition.name}')")
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


def _scheduled(root: Path) -> str | None:
    file = root / "scheduler" / "scheduler_config.json"
    if not file.exists():
        return None
    try:
        return str(json.loads(file.read_text()).get("prediction_type", "epsilon"))  # diffusers' default
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: is no scheduler config ({error})") from error


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
    files |= {
        f"{name}{inner}": file for name, path in sources.others.items() for inner, file in _inside(path)
    }
    if sources.file:
        files["file"] = sources.file
    for name in sorted(files):
        total.update(f"{name}\0".encode())
        total.update(bytes.fromhex(file_digest(files[name])))
    return total.hexdigest()


def _inside(path: Path) -> list[tuple[str, Path]]:
    """Return a file alone, whatever it is called, or the files of a folder under their names."""
    if path.is_file():
        return [("", path)]
    return [(f"/{file.name}", file) for file in sorted(path.iterdir()) if file.is_file()]


def _weight_files(folder: Path) -> list[Path]:
    """Only what is loaded: half-precision copies and pickles beside the safetensors do not count."""
    files = (file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    return sorted(file for file in files if ".fp16." not in file.name)
