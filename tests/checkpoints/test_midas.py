"""The reference is MiDaS' dpt_hybrid as published, written out here on timm's network."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import interpolate
from transformers import DPTConfig, DPTForDepthEstimation

import sd2eval
from sd2eval.checkpoints.midas import depth_names, depth_state
from sd2eval.errors import InputError

BUNDLED = json.loads(
    Path(sd2eval.__path__[0], "checkpoints/architectures/sd2-depth/depth_estimator.json").read_text()
)
# The published residual network under a narrow transformer: seconds become milliseconds.
NARROW = {
    "image_size": 64, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 96,
    "neck_hidden_sizes": [256, 512, 24, 24], "fusion_hidden_size": 16,
}  # fmt: skip


class Scratch(nn.Module):
    """A bag of modules under the names that MiDaS gives them."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


def conv3(inputs: int, outputs: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)  # type: ignore[arg-type]


def refinenet(width: int) -> Scratch:
    def unit() -> Scratch:
        return Scratch(conv1=conv3(width, width), conv2=conv3(width, width))

    return Scratch(resConfUnit1=unit(), resConfUnit2=unit(), out_conv=nn.Conv2d(width, width, 1))


def residual(unit: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x + unit.conv2(unit.conv1(x.relu()).relu())


def double(x: torch.Tensor) -> torch.Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class Midas(nn.Module):
    """dpt_hybrid, readout "project", features of backbone stages 1 and 2 and of blocks 9 and 12."""

    def __init__(self, config: DPTConfig) -> None:
        super().__init__()
        width, features = config.hidden_size, config.fusion_hidden_size
        vit = timm.create_model(
            "vit_base_r50_s16_384", img_size=config.image_size, embed_dim=width, depth=12,
            num_heads=config.num_attention_heads,
        )  # fmt: skip
        first, second, third, fourth = config.neck_hidden_sizes
        self.pretrained = Scratch(
            model=vit,
            act_postprocess3=nn.Sequential(
                self.readout(width), nn.Identity(), nn.Identity(), nn.Conv2d(width, third, 1)
            ),
            act_postprocess4=nn.Sequential(
                self.readout(width), nn.Identity(), nn.Identity(), nn.Conv2d(width, fourth, 1),
                conv3(fourth, fourth, stride=2),
            ),
        )  # fmt: skip
        self.scratch = Scratch(
            layer1_rn=conv3(first, features, bias=False),
            layer2_rn=conv3(second, features, bias=False),
            layer3_rn=conv3(third, features, bias=False),
            layer4_rn=conv3(fourth, features, bias=False),
            **{f"refinenet{index}": refinenet(features) for index in (1, 2, 3, 4)},
            output_conv=nn.Sequential(
                conv3(features, features // 2), nn.UpsamplingBilinear2d(scale_factor=2),  # aligns corners
                conv3(features // 2, 32), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.ReLU(),
            ),
        )  # fmt: skip
        self.seen: dict[str, torch.Tensor] = {}
        stages, blocks = vit.patch_embed.backbone.stages, vit.blocks
        for name, module in {"1": stages[0], "2": stages[1], "3": blocks[8], "4": blocks[11]}.items():
            module.register_forward_hook(lambda _, __, output, name=name: self.seen.update({name: output}))

    @staticmethod
    def readout(width: int) -> Scratch:
        return Scratch(project=nn.Sequential(nn.Linear(2 * width, width), nn.GELU()))

    def reassemble(self, post: nn.Sequential, tokens: torch.Tensor) -> torch.Tensor:
        """Give every patch the class token, then lay the patches out as a map."""
        patches = tokens[:, 1:]
        both = torch.cat([patches, tokens[:, :1].expand_as(patches)], dim=-1)
        side = math.isqrt(patches.shape[1])
        return post[3:](post[0].project(both).transpose(1, 2).unflatten(2, (side, side)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.pretrained.model.forward_features(image)
        maps = {
            "1": self.seen["1"],
            "2": self.seen["2"],
            "3": self.reassemble(self.pretrained.act_postprocess3, self.seen["3"]),
            "4": self.reassemble(self.pretrained.act_postprocess4, self.seen["4"]),
        }
        path = None
        for index in "4321":
            refine = getattr(self.scratch, f"refinenet{index}")
            lateral = getattr(self.scratch, f"layer{index}_rn")(maps[index])
            path = lateral if path is None else path + residual(refine.resConfUnit1, lateral)
            path = refine.out_conv(double(residual(refine.resConfUnit2, path)))
        return self.scratch.output_conv(path).squeeze(1)


def fill(model: nn.Module, seed: int) -> None:
    """Give every tensor, gains and biases too, values that show when it is used in another's place."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        tensor.normal_(generator=generator)
        if tensor.ndim == 1:
            tensor.mul_(0.3).add_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        elif name.endswith("weight"):
            tensor.mul_(tensor[0].numel() ** -0.5)
    model.state_dict()["scratch.output_conv.4.bias"].fill_(0.1)


@cache
def midas() -> tuple[Midas, DPTConfig]:
    config = DPTConfig(**BUNDLED | NARROW)
    model = Midas(config).eval()
    fill(model, 0)
    return model, config


def converted(model: Midas, config: DPTConfig) -> DPTForDepthEstimation:
    ours = DPTForDepthEstimation(config).eval()
    ours.load_state_dict(depth_state(model.state_dict(), config), strict=True, assign=True)
    return ours


def images(size: int) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.inference_mode()
def test_the_converted_network_computes_the_depth_of_midas() -> None:
    model, config = midas()
    want = model(images(config.image_size))
    got = converted(model, config)(pixel_values=images(config.image_size)).predicted_depth
    assert want.shape == (2, 64, 64)
    assert 0.1 < float((want > 0).float().mean()) < 0.9  # the last ReLU cuts some of it
    assert float(want.std()) > 0.1
    assert float((got - want).abs().max() / want.abs().max()) < 1e-5


def test_tensors_that_no_depth_depends_on_lie_where_midas_has_them() -> None:
    """A softmax cancels the keys' bias, hooks read before the last norm, one map enters the first fusion."""
    model, config = midas()
    theirs, ours = model.state_dict(), depth_state(model.state_dict(), config)
    for kind in ("weight", "bias"):
        assert torch.equal(ours[f"dpt.layernorm.{kind}"], theirs[f"pretrained.model.norm.{kind}"])
        for conv in (1, 2):
            unit = ours[f"neck.fusion_stage.layers.0.residual_layer1.convolution{conv}.{kind}"]
            assert torch.equal(unit, theirs[f"scratch.refinenet4.resConfUnit1.conv{conv}.{kind}"])
    for block in range(12):
        stacked = theirs[f"pretrained.model.blocks.{block}.attn.qkv.bias"]
        assert torch.equal(ours[f"dpt.encoder.layer.{block}.attention.attention.key.bias"], stacked[24:48])


def test_the_bundled_config_is_the_published_network() -> None:
    config = DPTConfig(**BUNDLED)
    with torch.device("meta"):
        model = Midas(config)
    state = model.state_dict()
    assert (
        sum(tensor.numel() for tensor in state.values()) // 10**6 == 123
    )  # MiDaS' own figure for dpt_hybrid
    assert depth_state(state, config).keys() == depth_names(config).keys()
    assert {model.pretrained.model.blocks[0].norm1.eps} == {config.layer_norm_eps}


def test_names_and_thirds_say_where_each_tensor_lies() -> None:
    model, config = midas()
    state = model.state_dict()
    names = depth_names(config)
    for ours, tensor in depth_state(state, config).items():
        name, third = names[ours]
        assert torch.equal(tensor, state[name] if third is None else state[name].chunk(3)[third])


def test_converting_copies_nothing() -> None:
    model, config = midas()
    kept = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    found = {
        tensor.untyped_storage().data_ptr() for tensor in depth_state(model.state_dict(), config).values()
    }
    assert found < kept


def refusal(state: dict[str, torch.Tensor]) -> str:
    with pytest.raises(InputError) as caught:
        depth_state(state, midas()[1])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("index", range(0, 360, 40))
def test_a_missing_tensor_is_refused_by_name(index: int) -> None:
    state = midas()[0].state_dict()
    name = list(state)[index]
    del state[name]
    assert refusal(state) == f"depth estimator: 1 tensors are missing (first: {name})"


def test_the_classifier_may_be_missing() -> None:
    model, config = midas()
    state = {name: tensor for name, tensor in model.state_dict().items() if ".head." not in name}
    assert len(state) == len(model.state_dict()) - 2
    assert len(depth_state(state, config)) == len(depth_names(config))


def test_unknown_tensors_are_refused_by_name() -> None:
    state = midas()[0].state_dict() | {"pretrained.model.dist_token": torch.zeros(1), "x": torch.zeros(1)}
    assert "2 tensors are not MiDaS dpt_hybrid's (first: pretrained.model.dist_token)" in refusal(state)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("pretrained.model.blocks.3.attn.qkv.weight", (70, 24), r"(72, 24)"),
        ("pretrained.model.blocks.3.attn.qkv.bias", (24,), r"(72,)"),
        ("pretrained.model.pos_embed", (1, 577, 24), r"(1, 17, 24)"),
        ("scratch.output_conv.4.bias", (), r"(1,)"),
    ],
)
def test_another_shape_is_refused(name: str, shape: tuple[int, ...], expected: str) -> None:
    line = refusal(midas()[0].state_dict() | {name: torch.zeros(shape)})
    assert line == f"depth estimator: {name} has shape {shape}, expected {expected}"
