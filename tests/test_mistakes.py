"""Each known way to sample another thing than the original code does is found by the acceptance limit.

The costs are those published with the recorded numbers (relative L2 at guidance 3.0, mean over two captions);
here one caption is sampled, and its cost must be of the same size. A mistake that costs nothing goes unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from diffusers import DDIMScheduler

from sd2eval import noise
from sd2eval.checkpoints import Checkpoint, Conditioning, layout, single_file
from sd2eval.checkpoints.weights_file import WeightsFile
from sd2eval.fixture import Fixture, architecture, load_fixture, read_fixture, weights_of
from sd2eval.sampler import Inputs, sample
from sd2eval.selfcheck import RAW_CONDITIONING, relative_l2
from tests import parity

ACCEPTED = 1e-5
SCALE = 3.0


class Study(NamedTuple):
    fixture: Fixture
    checkpoint: Checkpoint

    def given(self, name: str) -> torch.Tensor:
        return self.fixture.given[name]


@cache
def study(variant: str) -> Study:
    fixture = read_fixture(parity.folder(variant))
    return Study(fixture, load_fixture(fixture, weights_of(fixture), torch.device("cpu"), torch.float32))


def latent_error(variant: str, *, scale: float = SCALE, eta: float = 0.0, **changes: Any) -> float:
    """Sample the first caption with something changed, and return the distance from the original's latent."""
    fixture, checkpoint = study(variant)
    given, kind = fixture.given, checkpoint.definition.conditioning
    channels = changes.get("channels", given.get(RAW_CONDITIONING.get(kind, "")))
    labels = changes.get("labels", given.get("noise_level_20"))
    start = changes.get("start", given["x_T"])
    inputs = Inputs(
        noise=start[:1],
        cond=changes.get("cond", given["c"])[:1],
        uncond=changes.get("uncond", given["uc"])[:1],
        conditioning=Conditioning(channels, labels).rows(torch.tensor([0])),
        step_noise=lambda step: noise.normal(0, [0], f"eta/{step}", tuple(start.shape[1:])),
    )
    scheduler = changes.get("scheduler", checkpoint.scheduler)
    unet = changes.get("unet", checkpoint.unet)
    got = sample(unet, scheduler, inputs, [scale], steps=50, eta=eta, batch_size=1)[:, 0]
    return relative_l2(got, fixture.expected[f"latent_{SCALE}"][:1])


def found(error: float, cost: float) -> bool:
    """Whether the acceptance limit finds a mistake, and it costs what it was published to cost."""
    return error > 2 * ACCEPTED and cost / 4 < error < cost * 4


@pytest.mark.parametrize("variant", parity.VARIANTS)
def test_without_a_mistake_the_latent_is_accepted(variant: str) -> None:
    assert latent_error(variant) <= ACCEPTED


SCHEDULER = {
    "steps_offset": ({"steps_offset": 0}, {"base": 9.7e-3, "x4": 1.2e-2}),
    "final alpha": ({"set_alpha_to_one": True}, {"base": 1.5e-3, "x4": 4.9e-3}),
    "trailing": ({"timestep_spacing": "trailing"}, {"base": 1.1e-1, "x4": 2.3e-2}),
    "linspace": ({"timestep_spacing": "linspace"}, {"base": 6.0e-2, "x4": 4.0e-2}),
    "clipping": ({"clip_sample": True}, {"base": 1.0, "x4": 6.6e-1}),
    "linear betas": ({"beta_schedule": "linear"}, {"base": 7.2e-1, "x4": 4.2e-2}),
    "x4's betas": ({"beta_start": 0.0001, "beta_end": 0.02}, {"base": 1.3}),
    "base's betas": ({"beta_start": 0.00085, "beta_end": 0.012}, {"x4": 3.8e-2}),
    "epsilon as v": ({"prediction_type": "v_prediction"}, {"base": 9.2e-1}),
    "v as epsilon": ({"prediction_type": "epsilon"}, {"x4": 2.4e1, "v": 9.1}),
    "zero terminal SNR": ({"rescale_betas_zero_snr": True}, {"base": 8.1, "x4": 1.3e-2}),
}


@pytest.mark.parametrize(
    ("mistake", "variant"), [(name, variant) for name, (_, costs) in SCHEDULER.items() for variant in costs]
)
def test_another_schedule_is_found(mistake: str, variant: str) -> None:
    change, costs = SCHEDULER[mistake]
    scheduler = DDIMScheduler.from_config(study(variant).checkpoint.scheduler.config, **change)
    assert found(latent_error(variant, scheduler=scheduler), costs[variant])


@pytest.mark.parametrize(("variant", "cost"), [("base", 5.6e-2), ("x4", 1.7e-1)])
def test_guidance_counted_as_imagen_does_is_found(variant: str, cost: float) -> None:
    assert found(latent_error(variant, scale=SCALE + 1), cost)  # c + s (c - u)


@pytest.mark.parametrize(("variant", "cost"), [("base", 2.8e-1), ("x4", 9.1e-1)])
def test_swapped_branches_are_found(variant: str, cost: float) -> None:
    given = study(variant).given
    assert found(latent_error(variant, cond=given("uc"), uncond=given("c")), cost)


@pytest.mark.parametrize(("variant", "cost"), [("base", 4.2e-1), ("x4", 9.0e-1)])
def test_zeros_instead_of_the_empty_prompt_are_found(variant: str, cost: float) -> None:
    assert found(latent_error(variant, uncond=torch.zeros_like(study(variant).given("uc"))), cost)


@pytest.mark.parametrize(("variant", "cost"), [("base", 9.7e-1), ("x4", 1.2)])
def test_fresh_noise_at_every_step_is_found(variant: str, cost: float) -> None:
    assert found(latent_error(variant, eta=1.0), cost)


def text_model(variant: str, **changes: Any) -> Any:
    """Load a fixture's text encoder with another config."""
    fixture = study(variant).fixture
    described = architecture(fixture)
    described = replace(described, text_encoder=described.text_encoder | changes)
    weights = WeightsFile(weights_of(fixture))
    return single_file.load_text_model(weights, described, "open_clip", torch.float32)


def without_final_norm(variant: str) -> Any:
    model = text_model(variant)
    model.final_layer_norm = torch.nn.Identity()
    return model


def last_layer(variant: str) -> Any:
    """Load all 24 layers, which the loader refuses."""
    fixture = study(variant).fixture
    weights, layers = WeightsFile(weights_of(fixture)), 24
    model = type(text_model(variant))(
        type(text_model(variant).config)(**architecture(fixture).text_encoder | {"num_hidden_layers": layers})
    )
    names = layout.open_clip_names(layers)
    parts = dict(weights.read({piece.name for piece in names.values()}))
    model.load_state_dict({ours: piece.of(parts[piece.name]).float() for ours, piece in names.items()})
    return model.eval()


TEXT: dict[str, tuple[Callable[[str], Any], dict[str, float]]] = {
    "no final norm": (without_final_norm, {"base": 7.3e-1, "x4": 1.0}),
    "third layer from the end": (
        lambda variant: drop_layer(text_model(variant)),
        {"base": 7.6e-2, "x4": 1.6e-1},
    ),
    "last layer": (last_layer, {"base": 9.1e-2, "x4": 1.2e-1}),
    "quick gelu": (
        lambda variant: text_model(variant, hidden_act="quick_gelu"),
        {"base": 4.1e-3, "x4": 1.4e-2},
    ),
}


def drop_layer(model: Any) -> Any:
    model.encoder.layers = model.encoder.layers[:-1]
    return model


def encoded(
    model: Any, variant: str, ids: Callable[[torch.Tensor], torch.Tensor] = lambda ids: ids
) -> dict[str, Any]:
    given = study(variant).given
    with torch.inference_mode():
        return {
            name: model(input_ids=ids(given(tokens)))[0]
            for name, tokens in (("cond", "tokens"), ("uncond", "uncond_tokens"))
        }


@pytest.mark.parametrize(
    ("mistake", "variant"), [(name, variant) for name, (_, costs) in TEXT.items() for variant in costs]
)
def test_another_text_encoding_is_found(mistake: str, variant: str) -> None:
    build, costs = TEXT[mistake]
    assert found(latent_error(variant, **encoded(build(variant), variant)), costs[variant])


@pytest.mark.parametrize(("variant", "cost"), [("base", 3.4e-1), ("x4", 5.7e-1)])
def test_padding_with_the_end_token_is_found(variant: str, cost: float) -> None:
    def padded(ids: torch.Tensor) -> torch.Tensor:
        return torch.where(ids == 0, ids.max(), ids)

    assert found(latent_error(variant, **encoded(text_model(variant), variant, padded)), cost)


@pytest.mark.parametrize(
    ("variant", "heads", "cost"),
    [
        ("base", 1, 1.3e-1), ("base", 8, 1.2e-1), ("v", 1, 3.7e-1), ("inpainting", 1, 1.1e-1),
        ("inpainting", 8, 1.4e-1), ("x4", 4, 1.0e-1), ("x4", 2, 1.4e-1), ("depth", 1, 1.3e-1),
        ("depth", 8, 1.0e-1),
    ],
)  # fmt: skip
def test_another_number_of_heads_is_found(variant: str, heads: int, cost: float) -> None:
    fixture = study(variant).fixture
    described = architecture(fixture)
    described = replace(described, unet=described.unet | {"attention_head_dim": heads})
    unet = single_file.load_unet(WeightsFile(weights_of(fixture)), described, torch.float32)
    assert found(latent_error(variant, unet=unet), cost)


@pytest.mark.parametrize(
    ("variant", "factor", "cost"),
    [
        ("base", 0.18215, 1.7e-1),
        ("x4", 0.08333, 7.9e-1),
        ("base", 0.18215 / 0.08333, 2.1e-2),
        ("x4", 0.08333 / 0.18215, 1.3e-1),
    ],
)
def test_another_latent_scale_is_found(variant: str, factor: float, cost: float) -> None:
    fixture, checkpoint = study(variant)
    latent, image = (fixture.expected[f"{kind}_{SCALE}"] for kind in ("latent", "image"))
    assert relative_l2(checkpoint.decode(latent), image) <= ACCEPTED
    assert found(relative_l2(checkpoint.decode(latent * factor), image), cost)
