"""CLIP towers: what belongs to weights (activation, normalisation) comes with their tag, not their file."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from sd2eval.config import ExtractorConfig, from_overrides
from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor
from sd2eval.extractors import open_clip as kind
from sd2eval.plugins import extractor_kinds
from sd2eval.weights import hub
from sd2eval.weights.first_use import recorded
from sd2eval.weights.published import published
from tests.extractors.captioned import CAPTIONS, CPU, scenes
from tests.extractors.tiny_clips import HALF, OPENAI, architecture, publish, random_clip
from tests.hub_server import connect, serve

GIANT = "laion/CLIP-ViT-g-14-laion2B-s12B-b42K"
YAMLS = ["open_clip_vit_g_14", "open_clip_vit_h_14", "open_clip_vit_l_14", "open_clip_vit_b_32"]
YAMLS += ["clip_vit_l_14_336"]
FEATURES = NDArray[np.float32]


def config(
    source: Path | None, pretrained: str | None, model: str | None = "tiny", **more: object
) -> ExtractorConfig:
    settings = {"preprocess": None, "dtype": "float32", "batch_size": 2} | more
    where = None if source is None else str(source)
    return ExtractorConfig(
        name="mine", kind="open_clip", model=model, pretrained=pretrained, source=where, **settings
    )


def of_yaml(name: str) -> ExtractorConfig:
    chosen, _ = from_overrides(f"extractor@protocol.score={name}", "protocol.metrics=[clip_score]")
    return chosen.protocol.score


@pytest.fixture(autouse=True)
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One architecture with three published weights, and the same one with QuickGELU and larger."""
    architecture(tmp_path, "tiny")
    architecture(tmp_path, "tiny-quickgelu", quick_gelu=True)
    architecture(tmp_path, "tiny-48", pixels=48)
    tags = {"openai": OPENAI | {"quick_gelu": True}, "plain": OPENAI, "half": HALF}
    publish(monkeypatch, "tiny", **tags)
    publish(monkeypatch, "tiny-quickgelu", **tags)
    publish(monkeypatch, "tiny-48", **tags)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(random_clip("tiny").state_dict(), file)
    return file


def embeddings(settings: ExtractorConfig, images: NDArray[np.uint8]) -> FEATURES:
    extractor = load_extractor(settings, CPU)
    assert extractor.images is not None
    return extractor.images(images)["features"]


def theirs(
    tag: str, weights: Path, patch: pytest.MonkeyPatch, images: NDArray[np.uint8], quick: bool
) -> FEATURES:
    """What open_clip itself gives for a tag, whose file it finds here instead of downloading it."""
    patch.setitem(open_clip.pretrained._PRETRAINED["tiny"][tag], "file", str(weights))
    model, _, transform = open_clip.create_model_and_transforms(
        "tiny", pretrained=tag, force_quick_gelu=quick
    )
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.fromarray(image)) for image in images])
        return model.eval().encode_image(pixels, normalize=True).numpy()


@pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("plain", False), ("half", False)])
def test_a_file_gives_what_open_clip_gives_for_the_tag(
    tag: str, quick: bool, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = scenes(3, 48)
    got = embeddings(config(weights, tag), images)
    want = theirs(tag, weights, monkeypatch, images, quick)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-5)


def test_the_same_file_under_another_tag_gives_other_numbers(weights: Path) -> None:
    images = scenes(3, 48)
    openai, plain, half = (embeddings(config(weights, tag), images) for tag in ("openai", "plain", "half"))
    assert np.abs(openai - plain).max() > 1e-3  # the activation
    assert np.abs(half - plain).max() > 1e-3  # the normalisation


def test_quickgelu_in_the_architecture_s_name_changes_nothing_more(weights: Path) -> None:
    images = scenes(2, 32)
    named = embeddings(config(weights, "openai", "tiny-quickgelu"), images)
    assert np.array_equal(named, embeddings(config(weights, "openai"), images))
    with pytest.raises(InputError, match="tiny-quickgelu has QuickGELU, plain has not"):
        load_extractor(config(weights, "plain", "tiny-quickgelu"), CPU)


def test_texts_are_embedded_as_open_clip_does(weights: Path) -> None:
    extractor = load_extractor(config(weights, "plain"), CPU)
    model = random_clip("tiny").eval()
    with torch.inference_mode():
        want = model.encode_text(open_clip.tokenize(CAPTIONS), normalize=True).numpy()
    assert extractor.texts is not None
    np.testing.assert_allclose(extractor.texts(CAPTIONS), want, rtol=1e-4, atol=1e-5)


# Activation, pixels and mean of red, from the weights' publications: OpenAI's CLIP has QuickGELU; those
# of LAION here have GELU, and OpenAI's normalisation.
@pytest.mark.parametrize(
    ("name", "activation", "pixels", "red"),
    [
        ("open_clip_vit_g_14", "GELU", 224, 0.48145466),
        ("open_clip_vit_h_14", "GELU", 224, 0.48145466),
        ("open_clip_vit_l_14", "QuickGELU", 224, 0.48145466),
        ("open_clip_vit_b_32", "QuickGELU", 224, 0.48145466),
        ("clip_vit_l_14_336", "QuickGELU", 336, 0.48145466),
    ],
)
def test_each_network_is_the_one_that_its_weights_were_trained_as(
    name: str, activation: str, pixels: int, red: float
) -> None:
    with torch.device("meta"):  # shapes without memory
        model, prepare = kind.architecture(of_yaml(name))
    used = {type(module).__name__ for module in model.modules() if "GELU" in type(module).__name__}
    assert used == {activation}
    black = prepare(np.zeros((1, 512, 512, 3), np.uint8))
    assert black.shape == (1, 3, pixels, pixels)
    assert float(black[0, 0, 0, 0]) == pytest.approx(-red / 0.26862954)
    about = published()[name].about_bytes
    assert about is not None
    assert about == pytest.approx(4 * sum(tensor.numel() for tensor in model.parameters()), rel=0.01)


def test_laion_s_own_l_14_has_a_normalisation_of_its_own() -> None:
    settings = config(Path("unused"), "laion2b_s32b_b82k", "ViT-L-14")
    with torch.device("meta"):
        model, prepare = kind.architecture(settings)
    assert float(prepare(np.zeros((1, 224, 224, 3), np.uint8)).max()) == -1
    assert not any(type(module).__name__ == "QuickGELU" for module in model.modules())


def test_cmmd_s_preprocessing_is_pillow_s_bicubic_of_8_bit_images() -> None:
    images = scenes(2, 512)
    with torch.device("meta"):
        _, prepare = kind.architecture(of_yaml("clip_vit_l_14_336"))
    resized = [Image.fromarray(image).resize((336, 336), Image.Resampling.BICUBIC) for image in images]
    want = (np.stack(resized) / 255 - OPENAI["mean"]) / OPENAI["std"]
    np.testing.assert_allclose(prepare(images).permute(0, 2, 3, 1), want, atol=1e-5)


@pytest.mark.parametrize("name", YAMLS)
def test_a_yaml_s_weights_are_in_the_table_under_its_own_name(name: str) -> None:
    settings = of_yaml(name)
    assert settings.name == name
    assert settings.kind in extractor_kinds()
    assert kind.published_name(settings) == name


def test_features_do_not_depend_on_batch_or_order(weights: Path) -> None:
    images = scenes(5, 40)
    whole = embeddings(config(weights, "openai", batch_size=5), images)
    np.testing.assert_allclose(embeddings(config(weights, "openai"), images), whole, atol=1e-5)
    np.testing.assert_allclose(embeddings(config(weights, "openai"), images[::-1])[::-1], whole, atol=1e-5)


@pytest.fixture
def published_here(monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "tiny", giant=OPENAI | {"hf_hub": f"{GIANT}/"}, nowhere=OPENAI)


@pytest.mark.usefixtures("published_here")
def test_without_a_source_the_table_s_file_is_fetched_once_and_recorded(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SD2EVAL_CACHE", str(tmp_path / "sd2eval"))
    monkeypatch.setattr(hub, "PAUSES", (0.01,))
    with serve() as server:
        connect(server, tmp_path / "hub", monkeypatch)
        digest = server.put(GIANT, "open_clip_pytorch_model.bin", weights.read_bytes())
        server.put(GIANT, "open_clip_model.safetensors", b"what open_clip itself would ask for first")
        got = embeddings(config(None, "giant"), scenes(2))
        assert len(server.bodies()) == 1
        load_extractor(config(None, "giant"), CPU)
        assert len(server.bodies()) == 1
    assert np.array_equal(got, embeddings(config(weights, "giant"), scenes(2)))
    assert [(use.name, use.sha256) for use in recorded()] == [("open_clip_vit_g_14", digest)]


@pytest.mark.usefixtures("published_here")
@pytest.mark.parametrize(
    ("model", "tag", "line"),
    [
        ("tiny", "nowhere", "does not know where the weights nowhere of tiny are; set its `source`"),
        ("tiny", "open-ai", "`pretrained` must say .* got open-ai; allowed: giant, nowhere$"),
        ("tiny", None, "`pretrained` must say .* got None; allowed: giant, nowhere$"),
        ("tinny", "giant", "no architecture tinny in open_clip"),
        ("ViT-B-16-SigLIP", "webli", "another text tower than CLIP's"),
        ("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k", "another text tower than CLIP's"),
        (None, "giant", "`model` names no OpenCLIP architecture"),
    ],
)
def test_what_names_no_weights_is_refused(model: str | None, tag: str | None, line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        load_extractor(config(None, tag, model), CPU)
    assert "\n" not in str(caught.value)


def test_an_architecture_without_published_weights_needs_a_source(tmp_path: Path) -> None:
    architecture(tmp_path, "own")
    torch.save(random_clip("own").state_dict(), tmp_path / "own.bin")
    assert embeddings(config(tmp_path / "own.bin", None, "own"), scenes(2)).shape == (2, 16)
    with pytest.raises(InputError, match="neither `source` nor `pretrained` says which weights"):
        load_extractor(config(None, None, "own"), CPU)
    with pytest.raises(InputError, match="allowed: null, for an architecture without published weights"):
        load_extractor(config(tmp_path / "own.bin", "openai", "own"), CPU)


def test_layouts_that_hold_the_same_tensors_give_the_same(weights: Path, tmp_path: Path) -> None:
    state = random_clip("tiny").state_dict()
    save_file(state, tmp_path / "a.safetensors")
    trained = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "state_dict": trained}, tmp_path / "epoch_3.pt")
    torch.save(state | {"logit_scale": state["logit_scale"].reshape(1)}, tmp_path / "scale.pt")
    digests = {
        load_extractor(config(tmp_path / name, "openai"), CPU).digest
        for name in (weights.name, "a.safetensors", "epoch_3.pt", "scale.pt")
    }
    assert len(digests) == 1


def test_positions_of_another_image_size_are_refused_not_interpolated(weights: Path) -> None:
    line = r"visual\.positional_embedding has shape \[17, 32\], expected \[37, 32\]"
    with pytest.raises(InputError, match=line):
        load_extractor(config(weights, "openai", "tiny-48"), CPU)


def test_a_torchscript_archive_is_named_as_such(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the format that OpenAI published in
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "ViT-B-32.pt")
    with pytest.raises(InputError, match="is a TorchScript archive, which holds code"):
        load_extractor(config(tmp_path / "ViT-B-32.pt", "openai"), CPU)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_truncated_file_is_one_line(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    state = random_clip("tiny").state_dict()
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"cannot be read as weights") as caught:
        load_extractor(config(file, "openai"), CPU)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_or_with_nan_are_refused(tmp_path: Path) -> None:
    state = random_clip("tiny").state_dict()
    torch.save(state | {"visual.proj": torch.full_like(state["visual.proj"], torch.nan)}, tmp_path / "nan.pt")
    torch.save({"layers.0.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    del state["text_projection"]
    torch.save(state, tmp_path / "less.pt")
    for name, line in {
        "nan.pt": r"nan\.pt: NaN or infinity in its tensor visual\.proj",
        "other.pt": r"other\.pt: holds the weights of another network: \d+ tensors are missing",
        "less.pt": r"less\.pt: .* 1 tensors are missing \(first: text_projection\)",
    }.items():
        with pytest.raises(InputError, match=line):
            load_extractor(config(tmp_path / name, "openai"), CPU)


def test_another_preprocessing_is_refused_instead_of_ignored(weights: Path) -> None:
    with pytest.raises(InputError, match=r"preprocess must be null .* not 'squash'"):
        load_extractor(config(weights, "openai", preprocess="squash"), CPU)
