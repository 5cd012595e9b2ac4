"""Data files: what is wrong is named with its record, and the digest is of the bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from sd2eval.errors import InputError
from sd2eval.probes.base import ProbePrompt
from sd2eval.probes.prompt_sets import load_prompts, load_records, made

HEAD = {"name": "mine", "source": "me", "licence": "CC0"}


def written(folder: Path, content: Any, name: str = "mine.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_prompts_are_read_with_their_source(tmp_path: Path) -> None:
    prompts = [{"text": " A  red\nball."}, {"text": "Two", "key": 7, "group": 3, "labels": {"task": "count"}}]
    path = written(tmp_path, HEAD | {"prompts": prompts})
    found = load_prompts(path)
    assert (found.name, found.source, found.licence) == ("mine", "me", "CC0")
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.prompts == (
        ProbePrompt(key=0, text="A red ball.", group=0),
        ProbePrompt(key=7, text="Two", group=3, labels={"task": "count"}),
    )


def test_a_list_of_lines_is_a_prompt_set_too(tmp_path: Path) -> None:
    found = load_prompts(written(tmp_path, "a dog\n\n  two   cats \n", "animals.txt"))
    assert [(one.key, one.text) for one in found.prompts] == [(0, "a dog"), (1, "two cats")]
    assert (found.name, found.licence) == ("animals", "not stated")


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    (tmp_path / "mine.txt").write_bytes(mark + b"a dog\na cat\n")
    assert [one.text for one in load_prompts(tmp_path / "mine.txt").prompts] == ["a dog", "a cat"]
    whole = json.dumps(HEAD | {"prompts": [{"text": "a dog"}]}).encode()
    (tmp_path / "mine.json").write_bytes(mark + whole)
    assert [one.text for one in load_prompts(tmp_path / "mine.json").prompts] == ["a dog"]


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ([{"text": "a"}, {"text": " "}], r"prompts\[1\]: 'text' must be a text"),
        ([{"text": "a", "key": -1}], r"prompts\[0\]: 'key' must be a whole number"),
        ([{"text": "a", "key": True}], r"prompts\[0\]: 'key' must be a whole number"),
        ([{"text": "a", "group": 1.5}], r"prompts\[0\]: 'group' must be a whole number"),
        ([{"text": "a", "key": 3}, {"text": "b", "key": 3}], r"prompts\[1\]: key 3 is there twice"),
        ([{"text": "a", "labels": {"n": 2}}], r"prompts\[0\]: 'labels' must be an object of texts"),
        ([{"text": "a", "task": "x"}], r"prompts\[0\]: 'task' is no key of a prompt; put it into 'labels'"),
        ([{"text": "a", "image_file": 3}], r"prompts\[0\]: 'image_file' must be a text"),
        (["a"], r"prompts\[0\] is no object"),
        ([], "'prompts' must be a list that is not empty"),
    ],
)
def test_a_malformed_prompt_is_named(tmp_path: Path, prompts: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_prompts(written(tmp_path, HEAD | {"prompts": prompts}))


@pytest.mark.parametrize("missing", HEAD)
def test_a_file_without_source_or_licence_is_refused(tmp_path: Path, missing: str) -> None:
    content = {key: value for key, value in HEAD.items() if key != missing} | {"prompts": [{"text": "a"}]}
    with pytest.raises(InputError, match=f"'{missing}' must be a text"):
        load_prompts(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"name": ', r"not valid JSON at line 1, column 10"),
        ("[1]", "the top level must be an object"),
        ("", "not valid JSON"),
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_prompts(written(tmp_path, content))


def test_a_file_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"nope.json: no such file of prompts.*languages.json"):
        load_prompts("nope.json")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"name": "Chad"}, r"records\[1\]: it has no 'people'"),
        ({"name": "Chad", "people": "many"}, r"records\[1\]: 'people' is str, not int"),
        ({"name": "Chad", "people": True}, r"records\[1\]: 'people' is bool, not int"),
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, record: Any, words: str) -> None:
    path = written(tmp_path, HEAD | {"records": [{"name": "Peru", "people": 34}, record]})
    with pytest.raises(InputError, match=words):
        load_records(path, {"name": str, "people": int})


def test_what_is_made_has_a_digest_of_everything_in_it() -> None:
    def digest(text: str = "a", label: str = "en", of: str = "f0") -> str:
        return made("x", "y", "z", [ProbePrompt(key=1, text=text, labels={"l": label})], of).digest

    assert digest() == digest()
    assert len({digest(), digest(text="b"), digest(label="de"), digest(of="f1")}) == 4
