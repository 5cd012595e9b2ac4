"""The packaged family: complete, float16, small, and good enough to mean something."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sd2eval.mini import DATA, WEIGHTS
from sd2eval.mini.classifier import ATTRIBUTES, FEATURES, attributes, load_classifier
from sd2eval.mini.quality import definition, generate
from sd2eval.mini.quality_parts import Example, examples
from sd2eval.mini.render import render
from sd2eval.mini.train import COMPONENTS
from sd2eval.mini.train_clip import encode_condition, load_text_encoder
from sd2eval.mini.train_heads import estimate_depth, load_depth_estimator
from sd2eval.mini.train_unet import PLANS
from sd2eval.mini.train_vae import load_vae, psnr, to_float
from sd2eval.mini.training import Workshop

LIMIT_MB = 30.0
SHOP = Workshop(out=WEIGHTS, device=torch.device("cpu"))
HELD_OUT = examples(64)
IMAGES = np.stack([render(example.scene)[0] for example in HELD_OUT])


def weight_files() -> list[Path]:
    return sorted(WEIGHTS.rglob("*.safetensors"))


def test_every_component_is_there_and_logged() -> None:
    assert all((WEIGHTS / finished).exists() for finished, _ in COMPONENTS.values())
    log = json.loads((WEIGHTS / "TRAINING.json").read_text(encoding="utf-8"))["components"]
    assert set(log) == set(COMPONENTS) - {"tokenizer"}
    assert len(weight_files()) == len(log)


def test_weights_are_finite_float16() -> None:
    for path in weight_files():
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                tensor = file.get_tensor(name)
                assert tensor.dtype == torch.float16, (path, name)
                assert torch.isfinite(tensor).all(), (path, name)


def test_the_family_with_its_data_stays_below_the_limit() -> None:
    files = [
        p for folder in (WEIGHTS, DATA) for p in folder.rglob("*") if p.is_file() and ".work" not in p.parts
    ]
    assert sum(path.stat().st_size for path in files) < LIMIT_MB * 1e6


@pytest.mark.parametrize("name", ["vae", "vae-x4"])
def test_autoencoders_reach_28_db(name: str) -> None:
    model = load_vae(SHOP, name)
    assert psnr(model, IMAGES) >= 28.0
    with torch.no_grad():
        latents = model.encode(to_float(IMAGES)).latent_dist.mean * model.config["scaling_factor"]
    assert 0.8 < float(latents.std()) < 1.25


def test_no_level_has_as_many_norm_groups_as_channels() -> None:
    configs = [json.loads(path.read_text(encoding="utf-8")) for path in WEIGHTS.rglob("config.json")]
    grouped = [config for config in configs if "norm_num_groups" in config]
    assert len(grouped) == 2 + len(PLANS)
    assert all(config["norm_num_groups"] < min(config["block_out_channels"]) for config in grouped)


def test_the_text_encoder_is_what_the_checkpoints_load() -> None:
    from sd2eval.checkpoints.networks import load_text_model
    from sd2eval.checkpoints.text import text_encoder

    model = load_text_model(WEIGHTS / "text_encoder", torch.float32)
    loaded = text_encoder(model, WEIGHTS / "tokenizer", "open_clip")
    captions = [example.caption for example in HELD_OUT[:8]]
    tokens, truncated = loaded.tokenize(captions)
    ours = encode_condition(load_text_encoder(SHOP), tokens)
    assert not any(truncated)
    assert torch.allclose(loaded(captions)[0], ours, atol=1e-5)


def test_the_classifier_knows_the_attributes() -> None:
    model = load_classifier()
    features = model.features(to_float(IMAGES))
    assert tuple(features.shape) == (64, FEATURES)
    assert 0.9 < float(features.pow(2).mean().sqrt()) < 1.1
    truth = np.stack([attributes(example.scene) for example in HELD_OUT]) > 0.5
    with torch.no_grad():
        right = (model(to_float(IMAGES)).numpy() > 0) == truth
    chance = max(truth.mean(), 1 - truth.mean())
    assert truth.shape == (64, len(ATTRIBUTES))
    assert right.mean() > chance + 0.5 * (1 - chance)


def test_the_depth_estimator_sees_depth() -> None:
    depths = np.stack([render(example.scene)[1] for example in HELD_OUT])
    with torch.no_grad():
        predicted = estimate_depth(load_depth_estimator(SHOP), to_float(IMAGES)).numpy()
    assert predicted.shape == depths.shape
    assert np.corrcoef(predicted.ravel(), depths.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("name", list(PLANS))
def test_every_checkpoint_samples_something_like_its_scene(name: str) -> None:
    from sd2eval.checkpoints import load

    checkpoint = load(definition(name, WEIGHTS), torch.device("cpu"), torch.float32)
    wanted: list[Example] = HELD_OUT[:4]
    drawn = generate(checkpoint, wanted, [3.0], steps=8)
    assert drawn.shape == (4, 1, 64, 64, 3)
    # Right places: closer to the own scene's background rows than to the others', on average.
    sky = drawn[:, 0, :8].mean(axis=(1, 2))
    own = np.abs(sky - IMAGES[:4, :8].mean(axis=(1, 2))).mean()
    other = np.abs(sky - np.roll(IMAGES[:4, :8].mean(axis=(1, 2)), 1, axis=0)).mean()
    assert own < other
