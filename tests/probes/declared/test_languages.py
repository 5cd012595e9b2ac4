"""Languages: the loss is a paired difference of known value; the mini family loses what it never learned."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sd2eval.errors import InputError
from sd2eval.metrics import METRICS
from sd2eval.probes.base import Unavailable
from sd2eval.probes.declared import languages
from sd2eval.probes.declared.languages import PROBE, Scored, kept, loss, scored
from sd2eval.probes.means import mean_interval
from sd2eval.statistics import standard_error
from tests.probes.benches import bench_of


def test_agreement_is_the_cosine_with_the_own_caption_and_with_the_others() -> None:
    captions = np.eye(3, dtype=np.float32)
    images = np.array([[2, 0, 0], [0, 3, 3], [1, 1, 1]], dtype=np.float32)
    found = scored(images, captions)
    assert found.own == pytest.approx([1, 0.5**0.5, 3**-0.5])
    assert found.others == pytest.approx([0, 0.5**0.5 / 2, 3**-0.5])


def test_a_language_that_draws_the_same_loses_nothing() -> None:
    english = scored(*(np.random.default_rng(1).normal(size=(2, 9, 5)).astype(np.float32)))
    lost, left = loss(english, english), kept(english, english)
    assert (lost.value, np.abs(lost.influence).max()) == (0, 0)
    assert (left.value, np.abs(left.influence).max()) == pytest.approx((1, 0))


def test_a_language_that_is_not_understood_keeps_nothing() -> None:
    rng = np.random.default_rng(2)
    captions = rng.normal(size=(400, 16)).astype(np.float32)
    english = scored(captions + 0.1 * rng.normal(size=captions.shape).astype(np.float32), captions)
    other = scored(np.roll(captions, 1, axis=0), captions)
    found = kept(english, other)
    assert abs(found.value) < 3 * standard_error(found.influence) + 0.01
    assert loss(english, other).value == pytest.approx(english.own.mean(), abs=0.05)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_interval_holds_the_planted_loss(p: float) -> None:
    """Of a share p of the pictures another scene is shown, as where a language is not understood."""
    rng = np.random.default_rng(4)
    right, wrong = rng.normal(0.85, 0.08, 4000), rng.normal(0.2, 0.25, 4000)
    truth = p * float((right - wrong).mean())
    holds = 0
    for _ in range(800):
        chosen = rng.integers(4000, size=60)
        shown = np.where(rng.random(60) < p, wrong[chosen], right[chosen])
        low, high = mean_interval(loss(Scored(right[chosen], shown), Scored(shown, shown)))
        holds += low - 1e-12 <= truth <= high + 1e-12
    assert 0.92 <= holds / 800 <= (1 if p == 0 else 0.985)


def test_the_mini_family_knows_english_some_spanish_and_no_german(tmp_path: Path) -> None:
    overrides = ("checkpoints=[512-base]", "sampler.steps=8", "settings.languages.n=12")
    bench, (definition,) = bench_of("languages", tmp_path, *overrides)
    answer = PROBE.measure(bench, definition)
    rows = {(row.part, row.metric): row for row in answer.rows}
    spanish, german = rows["es", "clip_mini_loss"], rows["de", "clip_mini_loss"]
    assert german.low > max(spanish.high, 0.2)
    assert rows["de", "kept"].high < rows["es", "kept"].low
    assert rows["en", "clip_mini"].value - german.value == pytest.approx(rows["de", "clip_mini"].value)
    assert "Holm, 2 languages" in german.note
    assert {tile.text[:4] for tile in answer.tiles} == {"[en]", "[es]", "[de]"}
    assert "German loses" in " ".join(answer.sentences)


def test_one_language_is_said_in_the_singular_and_no_cosine_is_above_one() -> None:
    """Four pictures, three of them near 1: Hall's interval of their mean reaches 1.1."""
    own = np.array([0.99, 0.98, 0.99, 0.3])
    found = {"en": Scored(own, own - 0.2), "de": Scored(own - [0.1, 0.2, 0.3, 0.1], own - 0.3)}
    rows = languages._rows(found, range(4), METRICS["clip_mini"], "x", {})
    assert mean_interval(languages._mean(own), range(4)).high > 1
    (english,) = [row for row in rows if row.part == "en"]
    assert english.high == 1
    (lost,) = [row for row in rows if row.metric == "clip_mini_loss" and row.part]
    assert "paired with English; p = " in lost.note
    assert "Holm" not in lost.note
    said = languages._sentences(rows, SimpleNamespace(settings={"names": {"de": "German"}}))  # type: ignore[arg-type]
    assert said[0].startswith("Drawn from another language, pictures score ")
    assert said[1].startswith("German loses ")
    assert len(said) == 2


def test_every_language_of_a_caption_has_its_noise(tmp_path: Path) -> None:
    bench, _ = bench_of("languages", tmp_path, "checkpoints=[512-base]")
    found = PROBE.prompts(bench).prompts
    by_language = {
        name: [one.key for one in found if one.labels["language"] == name] for name in ("en", "de")
    }
    assert by_language["en"] == by_language["de"]
    assert len(set(by_language["en"])) == 60


def test_a_score_of_another_network_does_not_get_the_name(tmp_path: Path) -> None:
    words = ("checkpoints=[512-base]", "extractor@protocol.score=open_clip_vit_b_32")
    bench, (definition,) = bench_of("languages", tmp_path, *words)
    with pytest.raises(Unavailable, match=r"^clip_mini: needs a network of kind mini_clip, and protocol.sc"):
        PROBE.measure(bench, definition)


def published(tmp_path: Path, *overrides: str) -> object:
    root = tmp_path / "coco"
    (root / "val2017").mkdir(parents=True, exist_ok=True)
    (root / "val2017" / "1.jpg").touch()
    (root / "captions.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "1.jpg"}],
                "annotations": [{"id": k, "image_id": 1, "caption": "x"} for k in (5, 6)],
            }
        )
    )
    words = ("family=published", f"data.root={root}", "data.captions=captions.json", *overrides)
    from sd2eval.config import probing
    from sd2eval.devices import resolve_device
    from sd2eval.probes.bench import Shelf, Workbench
    from sd2eval.probes.run import whole_dataset

    config, _ = probing.from_overrides(*words)
    shelf = Shelf(config, whole_dataset(config), None, resolve_device("cpu"))  # type: ignore[arg-type]
    return PROBE.prompts(Workbench("languages", shelf))


def test_the_published_captions_are_in_every_language(tmp_path: Path) -> None:
    found = published(tmp_path)
    names = {one.labels["language"] for one in found.prompts}  # type: ignore[attr-defined]
    assert len(names) >= 11
    assert len(found.prompts) == 100 * len(names)  # type: ignore[attr-defined]


def test_a_language_that_the_file_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"languages.json: records\[0\]: there is no text in tlh"):
        published(tmp_path, "settings.languages.languages=[en,tlh]")


def test_a_script_that_the_sheets_font_lacks_is_not_drawn() -> None:
    assert languages._latin("Una mujer está de pie")
    assert not languages._latin("一名女子站在用餐区的桌子旁。")
