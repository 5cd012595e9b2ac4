from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import sd2eval.mini
from sd2eval.config import ExtractorConfig, from_overrides
from sd2eval.errors import InputError
from sd2eval.extractors import load_extractor
from sd2eval.extractors.base import state_digest

CPU = torch.device("cpu")


def images(n: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def config(kind: str, source: Path | None, model: str | None = None, batch_size: int = 4) -> ExtractorConfig:
    where = None if source is None else str(source)
    return ExtractorConfig(
        name="mine",
        kind=kind,
        model=model,
        pretrained=None,
        source=where,
        preprocess=None,
        dtype="float32",
        batch_size=batch_size,
    )


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Torch-fidelity's Inception-v3 with random weights, in a file as it loads them."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Empty(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, state: object, strict: bool = True) -> None:
            """Keep the random initialisation."""

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({}, file)
    torch.save(Empty("inception-v3-compat", ["2048"], feature_extractor_weights_path=file).state_dict(), file)
    return file


def test_inception_gives_the_pool_features_of_torch_fidelity(inception: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    batch = images(3)
    got = load_extractor(config("inception", inception, "inception-v3-compat", 2), CPU).images(batch)[
        "features"
    ]
    model = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(inception))
    want = model(torch.from_numpy(batch).permute(0, 3, 1, 2))[0].numpy()
    assert got.shape == (3, 2048)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


class _Canary:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.file,)


def test_inception_weights_with_code_in_them_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"fc.weight": _Canary(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="cannot load its weights") as caught:
        load_extractor(config("inception", tmp_path / "evil.pth", "inception-v3-compat"), CPU)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["mini_classifier", "mini_clip", "mini_lpips"])
def test_cut_weights_of_the_mini_world_are_named(kind: str, tmp_path: Path) -> None:
    bundled = Path(sd2eval.mini.__file__).parent / "weights"
    source = shutil.copytree(bundled if kind != "mini_clip" else bundled / "score_clip", tmp_path / "cut")
    for file in source.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match="extractor 'mine': cannot load its weights"):
        load_extractor(config(kind, source), CPU)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny architecture known to open_clip by name, with random weights in a file."""
    folder = tmp_path_factory.mktemp("clip")
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    (folder / "tiny-test.json").write_text(
        json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
    )
    open_clip.add_model_config(folder / "tiny-test.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-test").state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


def test_open_clip_gives_unit_embeddings_of_its_own_preprocessing(clip: Path) -> None:
    extractor = load_extractor(config("open_clip", clip, "tiny-test"), CPU)
    batch, texts = images(5, 48), ["a red ball", "Stop!", "two dogs"]
    model, _, transform = open_clip.create_model_and_transforms("tiny-test", pretrained=str(clip))
    model.eval()
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.fromarray(image)) for image in batch])
        want_images = model.encode_image(pixels, normalize=True).numpy()
        want_texts = model.encode_text(open_clip.tokenize(texts), normalize=True).numpy()
    assert extractor.texts is not None
    np.testing.assert_allclose(extractor.images(batch)["features"], want_images, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(extractor.texts(texts), want_texts, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(extractor.images(batch)["features"], axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("role", ["distance", "score"])
def test_mini_features_do_not_depend_on_batch_or_order(role: str) -> None:
    settings, _ = from_overrides()
    extractor = load_extractor(getattr(settings.protocol, role), CPU)
    batch = images(9)
    whole = extractor.images(batch)["features"]
    assert whole.dtype == np.float32
    np.testing.assert_allclose(extractor.images(batch[::-1])["features"][::-1], whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(extractor.images(batch[4:5])["features"], whole[4:5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "model", "line"),
    [
        ("incepton", None, "extractor kind 'incepton' is unknown; allowed: "),
        ("inception", "inception-v3-compat", "is not on this machine"),
        ("open_clip", "no-such-model", "cannot load its weights"),
        ("open_clip", None, "names no OpenCLIP architecture"),
    ],
)
def test_what_cannot_be_loaded_is_one_clear_line(kind: str, model: str | None, line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        load_extractor(config(kind, Path("/no/such/file") if kind == "inception" else None, model), CPU)
    assert "\n" not in str(caught.value)


def test_the_digest_of_weights_sees_values_names_and_shapes() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 6)
    before = state_digest(layer)
    assert state_digest(layer) == before
    with torch.no_grad():
        layer.weight[0, 0] += 1e-6
    changed = state_digest(layer)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.reshape(4, 6).reshape(6, 4))
    assert before != changed
    assert state_digest(torch.nn.Sequential(layer)) != changed
