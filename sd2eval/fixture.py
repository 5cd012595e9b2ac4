"""Recorded numbers of the original Stable Diffusion code, with the small checkpoint they were made with.

A fixture is a folder: `config.yaml` of the original code, `model.safetensors` or `model.ckpt` in the
published layout, and the original's numbers in float32: `inputs.safetensors` (initial noise `x_T`, `tokens`,
`uncond_tokens`, hidden states `c` and `uc`, raw inputs of the conditioning) and `expected.safetensors`
(`latent_<scale>`, `image_<scale>`). Beside them may lie `meta.json` (`prompts`, which `tokens` were made of),
`text_encoder/config.json` and `tokenizer/`, where these are not the published ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml  # type: ignore[import-untyped]
from safetensors import SafetensorError
from safetensors.torch import load_file

from sd2eval.checkpoints import Checkpoint, assemble
from sd2eval.checkpoints.architecture import Architecture, from_original
from sd2eval.checkpoints.networks import load_networks
from sd2eval.checkpoints.single_file import EXTRA_CHANNELS, LATENT_CHANNELS
from sd2eval.checkpoints.sources import Sources
from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError

SHIPPED = Path(__file__).parent / "fixtures"

KINDS = {LATENT_CHANNELS + extra: kind for kind, extra in EXTRA_CHANNELS.items()}
"""`checkpoint.conditioning` by the UNet's input channels."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Fixture:
    """A recorded study of one small checkpoint."""

    folder: Path
    given: Tensors
    expected: Tensors
    prompts: list[str]
    """What `tokens` were made of; empty if it is not recorded."""

    @property
    def scales(self) -> list[float]:
        """Guidance scales with a recorded latent, ascending."""
        found = (re.fullmatch(r"latent_(\d+(\.\d+)?)", name) for name in self.expected)
        return sorted(float(match[1]) for match in found if match)


def read_fixture(folder: Path) -> Fixture:
    """Read a fixture's numbers.

    Raises:
        InputError: a file is missing or damaged.
    """
    parts = []
    for name in ("inputs.safetensors", "expected.safetensors"):
        try:
            parts.append(load_file(folder / name))
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"fixtures={folder}: {name} cannot be read ({error}); a fixture holds config.yaml, "
                "model.safetensors, inputs.safetensors and expected.safetensors"
            ) from error
    meta = folder / "meta.json"
    try:
        prompts = list(json.loads(meta.read_text())["prompts"]) if meta.exists() else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"fixtures={folder}: meta.json cannot be read ({error})") from error
    given, expected = parts
    fixture = Fixture(folder, given, expected, prompts)
    missing = {"x_T", "tokens", "uncond_tokens", "c", "uc"} - fixture.given.keys()
    if missing or not fixture.scales:
        raise InputError(f"fixtures={folder}: has no {', '.join(sorted(missing)) or 'latent_<scale>'}")
    return fixture


def find_fixtures(folder: Path | None) -> list[Path]:
    """Return the fixtures in a folder, itself or below it; the shipped ones for None.

    Raises:
        InputError: there is none.
    """
    root = folder or SHIPPED
    if root.is_file():
        raise InputError(f"fixtures={root}: a folder is needed")
    found = [root] if (root / "expected.safetensors").exists() else []
    found = found or sorted(path.parent for path in root.glob("*/expected.safetensors"))
    if not found:
        raise InputError(f"fixtures={root}: no fixture in it (a folder with expected.safetensors)")
    return found


def definition(fixture: Fixture, weights: Path) -> CheckpointConfig:
    """Return the checkpoint that a fixture's yaml describes."""
    params = yaml.safe_load((fixture.folder / "config.yaml").read_text())["model"]["params"]
    kind = KINDS[params["unet_config"]["params"]["in_channels"]]
    pixels = fixture.given["x_T"].shape[-1] * 2 ** (
        len(params["first_stage_config"]["params"]["ddconfig"]["ch_mult"]) - 1
    )
    return CheckpointConfig(
        name=fixture.folder.name,
        conditioning=kind,
        prediction_type="v_prediction" if params.get("parameterization") == "v" else "epsilon",
        resolution=pixels,
        beta_start=params["linear_start"],
        beta_end=params["linear_end"],
        text="clip" if "FrozenCLIPEmbedder" in params["cond_stage_config"]["target"] else "open_clip",
        noise_level=20 if kind == "upscaling" else None,
        architecture=str(fixture.folder / "config.yaml"),
        lora_scale=1.0,
        source=str(weights),
        file=None,
        revision=None,
        components={},
        lora=None,
    )


def architecture(fixture: Fixture) -> Architecture:
    """Return a fixture's architecture; its text encoder's, which the yaml leaves open, lies beside it."""
    found = from_original(fixture.folder / "config.yaml")
    width = fixture.given["c"].shape[-1]
    beside = [fixture.folder / "text_encoder", *sorted(fixture.folder.parent.glob("*/text_encoder"))]
    for file in (path / "config.json" for path in beside):
        with whole(fixture):
            config = dict(json.loads(file.read_text())) if file.exists() else {}
        alike = config.get("hidden_act") == found.text_encoder["hidden_act"]
        if alike and config.get("hidden_size") == width:
            return replace(found, text_encoder=config)
    return found


def load_fixture(fixture: Fixture, weights: Path, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """Load a fixture's weights as the sweep would; without an estimator or masks, which it has recorded."""
    found = architecture(fixture)
    with whole(fixture):
        wanted = definition(fixture, weights)
    tokenizer = _tokenizer(fixture, wanted.text)
    folders = {"tokenizer": tokenizer} if tokenizer else {}
    parts = load_networks(wanted, Sources(weights, folders), dtype, found)
    return assemble(wanted, parts, device)


def _tokenizer(fixture: Fixture, kind: str) -> Path | None:
    """Return the folder of a fixture's own vocabulary, inside or beside it; None if it has none."""
    beside = fixture.folder.parent / ("tokenizer_v1" if kind == "clip" else "tokenizer")
    return next((path for path in (fixture.folder / "tokenizer", beside) if path.is_dir()), None)


@contextmanager
def whole(fixture: Fixture) -> Iterator[None]:
    """Say in one line that a fixture's parts do not fit each other."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"fixtures={fixture.folder}: its parts do not fit each other ({reason})") from error


def weights_of(fixture: Fixture) -> Path:
    """Return a fixture's weights file.

    Raises:
        InputError: there is none.
    """
    for name in ("model.safetensors", "model.ckpt"):
        if (fixture.folder / name).exists():
            return fixture.folder / name
    raise InputError(f"fixtures={fixture.folder}: holds neither model.safetensors nor model.ckpt")
