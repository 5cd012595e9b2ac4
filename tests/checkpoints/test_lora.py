from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

import sd2eval
from sd2eval.checkpoints.lora import merge_lora
from tests.lora_files import (
    Low,
    Names,
    attention_only,
    bare,
    dotted,
    draw,
    kohya,
    peft,
    processors,
    snapshot,
    text_model,
    unet,
    write,
)

ARCHITECTURES = Path(sd2eval.__path__[0], "checkpoints", "architectures")
SCALE = 0.7


@pytest.fixture
def models() -> dict[str, Any]:
    return {"unet": unet(), "text": text_model()}


FORMATS = [(kohya, None), (peft, None), (dotted, None), (processors, attention_only), (bare, attention_only)]


@pytest.mark.parametrize(("names", "only"), FORMATS)
def test_every_layer_becomes_its_weight_plus_the_low_rank_product(
    tmp_path: Path, models: dict[str, Any], names: Names, only: Any
) -> None:
    updates = [low for part in models for low in draw(part, models[part], only or (lambda name: True))]
    assert len(updates) > 100
    want = {part: {k: v.double() for k, v in model.state_dict().items()} for part, model in models.items()}
    for low in updates:
        want[low.part][f"{low.module}.weight"] += SCALE * low.delta()
    path = write(tmp_path / "lora.safetensors", names, updates)
    digest = merge_lora(path, models["unet"], models["text"], SCALE)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    for part, model in models.items():
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor.double(), want[part][name], rtol=1e-6, atol=1e-6)


def attach(model: Any, updates: list[Low], scale: float) -> None:
    """Let the layers compute layer(x) + scale * alpha / rank * up(down(x))."""
    for low in updates:
        layer = model.get_submodule(low.module)

        def add(layer: Any, inputs: Any, output: torch.Tensor, low: Low = low) -> torch.Tensor:
            (x,) = inputs
            if isinstance(layer, nn.Linear):
                branch = x @ low.down.T @ low.up.T
            else:
                inner = nn.functional.conv2d(x, low.down, None, layer.stride, layer.padding)
                branch = nn.functional.conv2d(inner, low.up)
            return output + scale * low.alpha / len(low.down) * branch

        layer.register_forward_hook(add)


@torch.inference_mode()
def test_the_merged_networks_compute_what_the_branches_beside_them_compute(tmp_path: Path) -> None:
    models, beside = {"unet": unet(), "text": text_model()}, {"unet": unet(), "text": text_model()}
    ids, latent = torch.arange(16).reshape(2, 8), torch.randn(2, 4, 8, 8)

    def output(networks: dict[str, Any]) -> torch.Tensor:
        return networks["unet"](latent, 500, networks["text"](input_ids=ids)[0]).sample

    before = output(models)
    for part in models:
        for low in (updates := list(draw(part, models[part]))):
            low.up *= 0.1  # an update that leaves the activations finite
        attach(beside[part], updates, SCALE)
        merge_lora(write(tmp_path / f"{part}.safetensors", kohya, updates), *models.values(), SCALE)
    after = output(models)
    torch.testing.assert_close(after, output(beside), rtol=1e-4, atol=1e-4)
    assert float((after - before).abs().max()) > 0.1


@pytest.mark.parametrize("architecture", ["sd1-5", "sd2-base", "sd2-depth", "sd2-inpainting", "sd2-x4"])
def test_every_layer_of_the_published_networks_has_its_own_name(tmp_path: Path, architecture: str) -> None:
    """Names with underscores could be ambiguous."""
    folder = ARCHITECTURES / architecture
    with torch.device("meta"):
        whole = UNet2DConditionModel.from_config(json.loads((folder / "unet.json").read_text()))
        text = CLIPTextModel(CLIPTextConfig(**json.loads((folder / "text_encoder.json").read_text())))
    updates = []
    for part, model in {"unet": whole, "text": text}.items():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                out, *rest = module.weight.shape
                updates.append(Low(part, name, torch.zeros(1, *rest), torch.zeros(out, 1), 1.0))
    assert len(updates) > 250
    merge_lora(write(tmp_path / "lora.safetensors", kohya, updates), whole, text)


def fuse_with_peft(path: Path, models: dict[str, Any], scale: float) -> None:
    pipeline = StableDiffusionPipeline(
        vae=None, text_encoder=models["text"], tokenizer=None, unet=models["unet"],
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    pipeline.fuse_lora(lora_scale=scale)
    pipeline.unload_lora_weights()


SETTINGS = {
    "unet.r": 2, "unet.lora_alpha": 3, "unet.alpha_pattern": {"to_q": 7, "attn2.to_k": 2.5, "to_k": 1.5},
    "text_encoder.r": 2, "text_encoder.lora_alpha": 5, "text_encoder.use_dora": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("names", "only", "alphas", "settings"),
    [
        (kohya, None, True, None),
        (kohya, None, False, None),
        (peft, None, False, None),
        (peft, None, False, SETTINGS),
        (dotted, attention_only, False, None),
        (processors, attention_only, False, None),
    ],
)
def test_the_weights_are_those_that_peft_fuses(
    tmp_path: Path, models: dict[str, Any], names: Names, only: Any, alphas: bool, settings: Any
) -> None:
    updates = [low for part in models for low in draw(part, models[part], only or (lambda name: True))]
    for low in updates:
        low.alpha = 4.0  # diffusers 0.42 gives a file with several alphas their most frequent one
        if settings:
            low.down, low.up = (
                low.down[:1].expand(2, *low.down.shape[1:]).clone(),
                low.up[:, :1].repeat(1, 2, *[1] * (low.up.ndim - 2)),
            )
    if settings:
        settings = settings | {
            f"{prefix}.target_modules": [low.module for low in updates if low.part == part]
            for prefix, part in (("unet", "unet"), ("text_encoder", "text"))
        }
    path = write(tmp_path / "lora.safetensors", names, updates, alphas, settings)
    theirs = {"unet": unet(), "text": text_model()}
    before = snapshot(*theirs.values())
    fuse_with_peft(path, theirs, SCALE)
    merge_lora(path, *models.values(), SCALE)
    changed = 0
    for ours, want, old in zip(snapshot(*models.values()), snapshot(*theirs.values()), before, strict=True):
        torch.testing.assert_close(ours, want, rtol=1e-5, atol=1e-6)
        changed += not torch.equal(want, old)
    assert changed == len(updates)


def test_at_scale_zero_the_weights_stay_to_the_bit(tmp_path: Path, models: dict[str, Any]) -> None:
    models["unet"].conv_in.weight.fill_(-0.0)
    path = write(tmp_path / "lora.safetensors", kohya, list(draw("unet", models["unet"])))
    before = snapshot(*models.values())
    merge_lora(path, *models.values(), 0.0)
    for old, new in zip(before, snapshot(*models.values()), strict=True):
        assert old.numpy().tobytes() == new.numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_summed_in_float32(
    tmp_path: Path, models: dict[str, Any], dtype: torch.dtype
) -> None:
    (low,) = draw("unet", models["unet"], lambda name: name == "conv_in")
    low.down, low.up = low.down.to(dtype), low.up.to(dtype)
    weight = models["unet"].to(dtype).conv_in.weight
    want = (weight.double() + low.delta()).to(dtype)
    merge_lora(write(tmp_path / "lora.safetensors", kohya, [low]), *models.values())
    assert weight.dtype == dtype
    assert torch.equal(weight, want)


@pytest.mark.parametrize("linear", [True, False])
def test_a_linear_layer_and_a_1x1_convolution_take_each_others_updates(tmp_path: Path, linear: bool) -> None:
    """Version 1 projects with 1x1 convolutions, version 2 with linear layers of the same size."""
    name = "down_blocks.0.attentions.0.proj_in"
    (low,) = draw("unet", unet(not linear), lambda it: it == name)
    model = unet(linear)
    weight = model.get_submodule(name).weight
    want = weight.double() + low.delta().reshape(weight.shape)
    merge_lora(write(tmp_path / "lora.safetensors", kohya, [low]), model, text_model())
    torch.testing.assert_close(weight.double(), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("names", [kohya, peft, dotted])
def test_what_adapts_the_unused_last_text_layer_changes_nothing(
    tmp_path: Path, models: dict[str, Any], names: Names
) -> None:
    known = list(draw("text", models["text"], lambda name: "layers.22." in name))
    unheard = [
        Low("text", low.module.replace(".22.", ".23."), low.down.clone(), low.up.clone(), 1.0)
        for low in known
    ]
    other = {"unet": unet(), "text": text_model()}
    merge_lora(write(tmp_path / "all.safetensors", names, known + unheard), *models.values())
    merge_lora(write(tmp_path / "known.safetensors", names, known), *other.values())
    for ours, want in zip(snapshot(*models.values()), snapshot(*other.values()), strict=True):
        assert torch.equal(ours, want)


def test_fused_projections_are_an_error_of_the_caller(tmp_path: Path, models: dict[str, Any]) -> None:
    path = write(tmp_path / "lora.safetensors", kohya, list(draw("unet", models["unet"])))
    models["unet"].fuse_qkv_projections()
    with pytest.raises(ValueError, match="before fuse_qkv_projections"):
        merge_lora(path, *models.values())
