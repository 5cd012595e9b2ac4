"""Paths and names mean what was typed, whatever characters they have; Hydra's grammar keeps its meaning."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sd2eval.config import from_overrides, readable
from sd2eval.config.quoting import as_typed, quote
from sd2eval.errors import InputError

ONE = ("checkpoint=512-base",)


@pytest.mark.parametrize(
    "value",
    [
        "/tmp/p ä ü (1)/x (1).safetensors",
        "größe/ñ/日本.ckpt",
        "it's/a'b",
        "a\\'b",
        "ends in\\",
        "C:\\data\\x.ckpt",
        "a=b",
        "x;y&z#1!",
        "old, new/x",
        "[draft/x",
        "weights(1)",
        "12e4567",
        "1_000",
        "1.50",
        "true",
        "007",
    ],
)
def test_a_path_arrives_as_it_was_typed(value: str) -> None:
    config, (definition,) = from_overrides(
        *ONE,
        f"checkpoint.source={value}",
        f"checkpoint.revision={value}",
        f"out={value}",
        f"data.root={value}",
    )
    assert definition.source == definition.revision == config.out == config.data.root == value


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="$"), min_size=1))
def test_any_text_survives_quoting(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    value = OverridesParser.create().parse_override(f"out={quote(text)}").value()
    assert value == text


def test_a_name_may_have_umlauts() -> None:
    _, (definition,) = from_overrides(*ONE, "checkpoint.name=größe")
    assert definition.name == "größe"


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config, (definition,) = from_overrides(
        *ONE, "out=~/my runs", "checkpoint.components.vae=~/v a e", "checkpoint.lora=~nobody-has-it/l"
    )
    assert config.out == f"{tmp_path}/my runs"
    assert definition.components["vae"] == f"{tmp_path}/v a e"
    assert definition.lora == "~nobody-has-it/l"


@pytest.mark.parametrize(
    "word",
    [
        "guidance_scales=[1,2.5]",
        "checkpoints=[512-base,768-v]",
        "checkpoint.revision=null",
        "checkpoint.components={unet: a/b}",
        "seed=3",
        "sampler.eta=1e-1",
        "dry_run=true",
        "data.root=${oc.env:HOME}/coco",
        "data.root='~/a b'",
        'data.root="a (1)"',
        "data.root=",
        "data.root=plain/path with spaces",
        "checkpoint=512-base",
        "~seed",
        "+new=1",
        "guidance_scales=[1",
        "noise_levels=1,2",
        "--config-dir",
    ],
)
def test_what_the_grammar_is_for_stays(word: str) -> None:
    assert as_typed([word]) == [word]


def test_several_runs_are_still_separated_by_commas() -> None:
    assert as_typed(["out=a,b"], many=True) == ["out=a,b"]
    assert readable(["-m", "out=a,b"]) == ["-m", "out=a,b"]
    assert as_typed(["out=a,b"]) == ["out='a,b'"]


def test_options_of_the_command_line_are_left_alone() -> None:
    words = ["--config-dir", "größe (1)", "--cfg", "job", "out=größe"]
    assert readable(words) == [*words[:-1], "out='größe'"]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("checkpoints=[größe]", "\"checkpoints=['größe']\""),
        ("checkpoints=[a b!,'c']", "\"checkpoints=['a b!','c']\""),
        ("+checkpoint.components={vae: ~/x}", "quote what is in it"),
        ("guidance_scales=[1", "lists as KEY=[A,B], without spaces"),
    ],
)
def test_what_stays_refused_shows_how_to_quote_it(word: str, hint: str) -> None:
    with pytest.raises(InputError) as error:
        from_overrides(*ONE[: word.startswith("+")], word)
    assert word in str(error.value)
    assert hint in str(error.value)


def test_the_form_that_the_hint_shows_is_read() -> None:
    with pytest.raises(InputError, match="'größe' is unknown"):
        from_overrides("checkpoints=['größe']")
