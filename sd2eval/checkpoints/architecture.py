"""What a checkpoint's networks look like, without weights: bundled configs, or the original code's yaml."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from sd2eval.errors import InputError

BUNDLED = Path(__file__).parent / "architectures"
COMPONENTS = ("unet", "vae", "text_encoder", "depth_estimator")

Config = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """Configs of a checkpoint's networks, in the words of diffusers and transformers."""

    unet: Config
    vae: Config
    text_encoder: Config
    depth_estimator: Config | None = None


def load_architecture(name: str) -> Architecture:
    """Return a bundled architecture by name, or that of a folder or a yaml file.

    Args:
        name: `sd2-base` and the like; a folder with `unet.json`, `vae.json`, `text_encoder.json` and (depth)
            `depth_estimator.json`; or a yaml of the original code (`v2-inference.yaml`), which says nothing
            about the text encoder: SD2's or v1's is taken.

    Raises:
        InputError: no such architecture, or the yaml describes something else.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return from_original(path)
    folder = BUNDLED / name if name in bundled() else path
    if not folder.is_dir():
        raise InputError(
            f"checkpoint.architecture={name}: allowed: {', '.join(bundled())}, "
            "a folder with unet.json, vae.json and text_encoder.json, or an original .yaml"
        )
    found = {part: _read_json(folder / f"{part}.json") for part in COMPONENTS}
    for part in COMPONENTS[:3]:
        if found[part] is None:
            raise InputError(f"checkpoint.architecture={name}: {part}.json is missing in it")
    return Architecture(**found)  # type: ignore[arg-type]


def bundled() -> list[str]:
    """Return the names of the architectures that come with the package."""
    return sorted(folder.name for folder in BUNDLED.iterdir())


def _read_json(file: Path) -> Config | None:
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: is no config (a JSON object is needed)")
    return content


def from_original(file: Path) -> Architecture:
    """Translate a configuration of the original code.

    Raises:
        InputError: it does not describe a latent diffusion model of the Stable Diffusion 1 or 2 family.
    """
    try:
        params = yaml.safe_load(file.read_text())["model"]["params"]
        unet = params["unet_config"]["params"]
        first_stage = params["first_stage_config"]["params"]["ddconfig"]
        old_text = "FrozenCLIPEmbedder" in params["cond_stage_config"]["target"]
        midas = params.get("depth_stage_config", {}).get("target", "").endswith("MiDaSInference")
        return Architecture(
            unet=_unet(unet),
            vae=_vae(first_stage, params["scale_factor"]),
            text_encoder=load_architecture("sd1-5" if old_text else "sd2-base").text_encoder,
            depth_estimator=load_architecture("sd2-depth").depth_estimator if midas else None,
        )
    except (KeyError, TypeError, ValueError, OSError, yaml.YAMLError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{file}: is no configuration of Stable Diffusion's original code ({reason})"
        ) from error


def _unet(params: Config) -> Config:
    channels = [params["model_channels"] * multiple for multiple in params["channel_mult"]]
    # `attention_resolutions` counts how often the latent was halved, as a factor.
    attends = [2**level in params["attention_resolutions"] for level in range(len(channels))]
    if "num_head_channels" in params and params["num_head_channels"] != -1:
        heads: Any = [width // params["num_head_channels"] for width in channels]
    else:
        heads = params["num_heads"]
    config = {
        "in_channels": params["in_channels"],
        "out_channels": params["out_channels"],
        "block_out_channels": channels,
        "down_block_types": ["CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)],
        "layers_per_block": params["num_res_blocks"],
        "transformer_layers_per_block": params["transformer_depth"],
        "cross_attention_dim": params["context_dim"],
        "attention_head_dim": heads,  # diffusers' name; it is the number of heads
        "use_linear_projection": params.get("use_linear_in_transformer", False),
        "num_class_embeds": params.get("num_classes"),
    }
    disabled = params.get("disable_self_attentions")
    if disabled:
        config["only_cross_attention"] = list(disabled)
    return config


def _vae(params: Config, scale_factor: float) -> Config:
    channels = [params["ch"] * multiple for multiple in params["ch_mult"]]
    return {
        "in_channels": params["in_channels"],
        "out_channels": params["out_ch"],
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "layers_per_block": params["num_res_blocks"],
        "latent_channels": params["z_channels"],
        "scaling_factor": scale_factor,
    }
