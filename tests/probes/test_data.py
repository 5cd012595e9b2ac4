from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from sd2eval.probes.prompt_sets import DATA, load_records

REAL = Path(__file__).resolve().parents[3] / "shared" / "coco" / "annotations" / "captions_val2017.json"

TEXT, WHOLE, NUMBER, LIST = str, int, (int, float), list
SHARE = (int, float, type(None))
SHARES = ("share_women", "share_white", "share_black", "share_asian", "share_hispanic")
NEEDS: dict[str, dict[str, Any]] = {
    "countries": {
        "name": TEXT,
        "in": TEXT,
        "region": TEXT,
        "subregion": TEXT,
        "population_millions": NUMBER,
    },
    "cultural_scenes": {"key": WHOLE, "text": TEXT, "with_place": TEXT},
    "occupations": {"key": WHOLE, "occupation": TEXT, "title": TEXT, "employed_thousands": WHOLE}
    | dict.fromkeys(SHARES, SHARE),
    "adjectives": {"key": WHOLE, "adjective": TEXT},
    "identities": {"key": WHOLE, "template": TEXT, "genders": LIST, "ethnicities": LIST},
    "languages": {
        "key": WHOLE,
        "caption_id": WHOLE,
        "image_id": WHOLE,
        "image_file": TEXT,
        "translations": dict,
    },
}
REGIONS = {"Africa", "Asia", "Europe", "Latin America and the Caribbean", "Northern America", "Oceania"}

SCRIPTS = {
    "ar": {"ARABIC"},
    "bn": {"BENGALI"},
    "fa": {"ARABIC"},
    "hi": {"DEVANAGARI"},
    "ja": {"HIRAGANA", "KATAKANA", "CJK", "KATAKANA-HIRAGANA"},
    "ko": {"HANGUL"},
    "ru": {"CYRILLIC"},
    "th": {"THAI"},
    "uk": {"CYRILLIC"},
    "ur": {"ARABIC"},
    "zh": {"CJK"},
}
"""First words of the letters' Unicode names; every other language is written in Latin letters."""

TELLTALES = {
    "en": {"the", "and", "with", "of"},
    "es": {"el", "los", "las", "y", "en", "del"},
    "de": {"ein", "eine", "einem", "einer", "und", "mit"},
    "fr": {"une", "dans", "avec", "et", "des"},
    "it": {"di", "che", "della", "il", "su"},
    "pt": {"um", "uma", "em", "ao"},
    "tr": {"bir", "ve", "ile", "olan"},
    "sw": {"na", "ya", "wa", "kwenye"},
}
"""Words that are frequent in one language and rare in the others."""


def records(name: str) -> tuple[Mapping[str, Any], ...]:
    return load_records(f"{name}.json", NEEDS[name]).records


def twice(values: Any) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]


@pytest.mark.parametrize("name", NEEDS)
def test_a_file_is_read_with_one_record_per_line_and_says_where_it_comes_from(name: str) -> None:
    found = load_records(f"{name}.json", NEEDS[name])
    assert found.name
    assert len(found.source) > 20
    lines = [line.strip().rstrip(",") for line in (DATA / f"{name}.json").read_text("utf-8").splitlines()]
    start = lines.index('"records": [') + 1
    assert [json.loads(line) for line in lines[start : start + len(found.records)]] == list(found.records)


@pytest.mark.parametrize("name", NEEDS)
def test_records_have_the_same_keys_and_none_is_there_twice(name: str) -> None:
    found = records(name)
    assert len({tuple(record) for record in found}) == 1
    identifier = "name" if name == "countries" else "key"
    assert not twice(record[identifier] for record in found)
    for key in ("name", "in", "text", "with_place", "occupation", "title", "adjective"):
        assert not twice(record[key].casefold() for record in found if key in record)


@pytest.mark.parametrize("name", NEEDS)
def test_texts_have_no_space_too_many(name: str) -> None:
    for record in records(name):
        for value in record.values():
            if isinstance(value, str):
                assert value == " ".join(value.split())
                assert value


def test_countries_are_of_all_regions() -> None:
    found = records("countries")
    assert len(found) == 40
    assert {one["region"] for one in found} == REGIONS
    assert all(count >= 2 for count in Counter(one["region"] for one in found).values())
    of = {(one["subregion"], one["region"]) for one in found}
    assert not twice(subregion for subregion, _ in of)
    for one in found:
        assert one["in"] in (f"in {one['name']}", f"in the {one['name']}")


def test_a_region_has_more_people_than_its_countries() -> None:
    found = records("countries")
    regions = json.loads((DATA / "countries.json").read_text("utf-8"))["regions"]
    assert regions.keys() == REGIONS
    for region, people in regions.items():
        here = [one["population_millions"] for one in found if one["region"] == region]
        assert min(here) > 0
        assert 0.4 * people < sum(here) < people
    assert sum(regions.values()) == pytest.approx(8091.7, abs=0.3)  # the world, in the same source


def test_scenes_take_a_place() -> None:
    scenes, countries = records("cultural_scenes"), records("countries")
    assert len(scenes) >= 12
    assert {"a wedding", "a house", "a meal", "a street", "a kitchen"} <= {one["text"] for one in scenes}
    for scene, country in product(scenes, countries):
        text = scene["with_place"].format(place=country["in"])
        assert text == f"{scene['text']} {country['in']}"


def test_shares_of_occupations_are_shares() -> None:
    found = records("occupations")
    assert sum(one["share_women"] is not None for one in found) >= 60
    for one in found:
        for key in SHARES:
            assert one[key] is None or (0 <= one[key] <= 1 and one[key] == round(one[key], 2))
        races = [one[key] or 0 for key in ("share_white", "share_black", "share_asian")]
        assert sum(races) <= 1.015, one["occupation"]  # three roundings
        assert one["employed_thousands"] >= 50  # fewer, and the table shows no shares


def test_occupations_reach_from_nearly_all_men_to_nearly_all_women() -> None:
    shares = [one["share_women"] for one in records("occupations")]
    for low, high in ((0, 0.1), (0.1, 0.35), (0.35, 0.65), (0.65, 0.9), (0.9, 1)):
        assert sum(low <= share < high for share in shares) >= 5


def test_occupations_have_the_shares_that_the_table_prints() -> None:
    women = {one["title"]: one["share_women"] for one in records("occupations")}
    printed = {"Registered nurses": 0.88, "Chief executives": 0.29, "Carpenters": 0.04, "Lawyers": 0.39}
    assert {title: women[title] for title in printed} == printed


def test_adjectives_are_single_words() -> None:
    found = records("adjectives")
    assert len(found) == 24
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)?", one["adjective"]) for one in found)


def test_identities_are_the_68_prompts_of_stable_bias() -> None:
    (one,) = records("identities")
    assert not twice(one["genders"])
    assert not twice(one["ethnicities"])
    assert all(isinstance(term, str) for term in [*one["genders"], *one["ethnicities"]])
    assert {"man", "woman", "non-binary person", "person"} == set(one["genders"])
    assert "" in one["ethnicities"]
    made = [
        one["template"].format(gender=gender, ethnicity=ethnicity)
        for gender, ethnicity in product(one["genders"], one["ethnicities"])
    ]
    assert len(set(made)) == 68


def letters(text: str) -> list[str]:
    return [
        unicodedata.name(sign).split()[0] for sign in text if unicodedata.category(sign) in ("Lo", "Ll", "Lu")
    ]


def test_100_captions_have_the_same_ten_languages_or_more() -> None:
    found = records("languages")
    assert len(found) == 100
    spoken = {tuple(sorted(one["translations"])) for one in found}
    assert len(spoken) == 1
    assert "en" in min(spoken)
    assert len(min(spoken)) >= 10
    for one in found:
        texts = one["translations"].values()
        assert all(text and text == " ".join(text.split()) for text in texts)
    for language in min(spoken):
        assert not twice(one["translations"][language] for one in found), language


def test_captions_are_written_in_the_letters_of_their_language() -> None:
    for one in records("languages"):
        for language, text in one["translations"].items():
            seen = Counter(letters(text))
            own = SCRIPTS.get(language, {"LATIN"})
            assert seen.keys() <= own | {"LATIN"}, (one["key"], language, text)  # names such as Wii stay
            assert sum(seen[script] for script in own) >= 0.8 * seen.total(), (one["key"], language, text)
            if language != "en":
                assert text.casefold() != one["translations"]["en"].casefold(), (one["key"], language)
    japanese = [one["translations"].get("ja", "の") for one in records("languages")]
    assert all({"HIRAGANA", "KATAKANA"} & set(letters(text)) for text in japanese)


def test_captions_have_the_words_of_their_language() -> None:
    found = records("languages")
    for language in TELLTALES.keys() & found[0]["translations"].keys():
        words = [set(re.findall(r"\w+", one["translations"][language].casefold())) for one in found]
        hits = {other: sum(bool(own & seen) for seen in words) for other, own in TELLTALES.items()}
        assert max(hits, key=hits.__getitem__) == language, hits


@pytest.mark.skipif(not REAL.is_file(), reason="the COCO files are not in ../shared/coco")
def test_english_captions_are_those_of_coco() -> None:
    data = json.loads(REAL.read_text("utf-8"))
    captions = {one["id"]: one for one in data["annotations"]}
    images = {one["id"]: one["file_name"] for one in data["images"]}
    found = records("languages")
    assert not twice(one["caption_id"] for one in found)
    for one in found:
        caption = captions[one["caption_id"]]
        assert one["image_id"] == caption["image_id"]
        assert one["image_file"] == images[one["image_id"]]
        assert one["translations"]["en"] == " ".join(caption["caption"].split())
