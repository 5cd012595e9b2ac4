from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sd2eval.errors import InputError
from sd2eval.prompts import load_captions, missing_images, missing_message, prompts_digest, select
from sd2eval.records import Prompt

REAL = Path(__file__).resolve().parents[2] / "shared" / "coco"
real_only = pytest.mark.skipif(not REAL.is_dir(), reason="the COCO files are not in ../shared/coco")

VALID: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [
        {"id": 7, "file_name": "000000000007.jpg", "height": 4},
        {"id": 9, "file_name": "val2017/000000000009.jpg"},
    ],
    "annotations": [
        {"id": 30, "image_id": 9, "caption": "A dog.\n"},
        {"id": 10, "image_id": 7, "caption": "A  cat on a mat"},
        {"id": 20, "image_id": 7, "caption": "Un gato ñandú"},
    ],
}


def write(folder: Path, data: Any) -> Path:
    path = folder / "captions.json"
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


def changed(*steps: str | int, to: Any) -> dict[str, Any]:
    """Return VALID with the value at `steps` replaced, or deleted when `to` is `...`."""
    data = copy.deepcopy(VALID)
    target: Any = data
    for step in steps[:-1]:
        target = target[step]
    if to is ...:
        del target[steps[-1]]
    else:
        target[steps[-1]] = to
    return data


def test_loads_by_caption_id_with_its_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, VALID)
    file = load_captions(path)
    assert file.prompts == (
        Prompt(caption_id=10, image_id=7, image_file="000000000007.jpg", text="A cat on a mat"),
        Prompt(caption_id=20, image_id=7, image_file="000000000007.jpg", text="Un gato ñandú"),
        Prompt(caption_id=30, image_id=9, image_file="val2017/000000000009.jpg", text="A dog."),
    )
    assert file.image_files == ("000000000007.jpg", "val2017/000000000009.jpg")
    assert file.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert capsys.readouterr() == ("", ""), "pycocotools must not print"


CASES = {
    "no images": (changed("images", to=...), "has no 'images'"),
    "no annotations": (changed("annotations", to=...), "has no 'annotations'"),
    "images not a list": (changed("images", to={}), "'images' is an object"),
    "nothing in it": (changed("annotations", to=[]), "'annotations' is empty"),
    "annotation not an object": (changed("annotations", 1, to="x"), r"annotations\[1\] is a text"),
    "no id": (changed("annotations", 2, "id", to=...), r"annotations\[2\]: it has no 'id'"),
    "no image_id": (changed("annotations", 0, "image_id", to=...), "caption 30: it has no 'image_id'"),
    "no caption": (changed("annotations", 0, "caption", to=...), "caption 30: it has no 'caption'"),
    "bool id": (changed("annotations", 0, "id", to=True), r"annotations\[0\]: 'id' is a truth value"),
    "float id": (changed("annotations", 0, "id", to=30.0), "'id' is a float"),
    "negative id": (changed("annotations", 0, "id", to=-1), "'id' is negative"),
    "huge id": (changed("annotations", 0, "id", to=2**63), "'id' is larger than 63 bits"),
    "text image_id": (changed("annotations", 0, "image_id", to="9"), "caption 30: 'image_id' is a text"),
    "caption null": (changed("annotations", 0, "caption", to=None), "caption 30: 'caption' is null"),
    "empty caption": (changed("annotations", 0, "caption", to=""), "caption 30: 'caption' is empty"),
    "blank caption": (changed("annotations", 0, "caption", to=" \n\t"), "caption 30: 'caption' is empty"),
    "half a surrogate": (changed("annotations", 0, "caption", to="a \ud800"), "caption 30: .*surrogate"),
    "same caption id": (changed("annotations", 1, "id", to=20), "caption 20: two captions"),
    "same image id": (changed("images", 1, "id", to=7), "image 7: two images"),
    "unknown image": (changed("annotations", 0, "image_id", to=8), "caption 30: its image 8 is not"),
    "no file_name": (changed("images", 0, "file_name", to=...), "image 7: it has no 'file_name'"),
    "no image id": (changed("images", 0, "id", to=...), r"images\[0\]: it has no 'id'"),
    "not an object": ([VALID], "the top level is a list"),
    "not JSON": (b'{"images": [],\n  oops}', "line 2, column 3"),
    "cut off": (json.dumps(VALID).encode()[:-40], "cut off"),
    "nothing": (b"", "cut off"),
    "not text": (b"\xff\xd8\xff\xe0 a JPEG", "not valid JSON"),
    "deep": (b"[" * 200_000, "nested too deeply"),
    "endless integer": (b'{"images": ' + b"1" * 5000 + b"}", "not valid JSON"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_one_line_that_names_file_and_record(tmp_path: Path, case: str) -> None:
    data, message = CASES[case]
    path = write(tmp_path, data)
    with pytest.raises(InputError, match=message) as caught:
        load_captions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../x.jpg",
        "a/../../x.jpg",
        "C:\\x.jpg",
        "C:x.jpg",
        "..\\x.jpg",
        "a\nb.jpg",
        "a/",
        ".",
        "//x",
    ],
)
def test_file_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"image 7: file_name .* inside the image folder"):
        load_captions(write(tmp_path, changed("images", 0, "file_name", to=name)))


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_captions(tmp_path / "absent.json")
    with pytest.raises(InputError, match="Is a directory"):
        load_captions(tmp_path)


def test_categories_of_other_coco_files_do_not_matter(tmp_path: Path) -> None:
    # pycocotools would raise KeyError on either.
    for categories in (None, [{"name": "cat"}]):
        assert len(load_captions(write(tmp_path, {**VALID, "categories": categories})).prompts) == 3


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
)


def paths(data: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: list[Any] = []
    if isinstance(data, dict):
        items = list(data.items())
    elif isinstance(data, list):
        items = list(enumerate(data))
    return [found for key, value in items for found in [(*prefix, key), *paths(value, (*prefix, key))]]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw a valid file with faults: values replaced or deleted, elements doubled, bytes cut."""
    data = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(paths(data)))
        target: Any = data
        for step in where[:-1]:
            target = target[step]
        action = draw(st.sampled_from(["replace", "delete", "double"]))
        if action == "replace":
            target[where[-1]] = draw(JUNK)
        elif action == "double" and isinstance(target, list):
            target.append(copy.deepcopy(target[where[-1]]))
        else:
            del target[where[-1]]
        if not paths(data):
            break
    raw = json.dumps(data).encode()
    if draw(st.booleans()):
        begin = draw(st.integers(0, len(raw)))
        raw = raw[:begin] + draw(st.binary(max_size=3)) + raw[begin + draw(st.integers(0, 20)) :]
    return raw


def sound(prompt: Prompt) -> bool:
    """Say, without the code under test, whether a prompt can be used."""
    numbers = type(prompt.caption_id) is int and type(prompt.image_id) is int
    inside = not prompt.image_file.startswith("/") and ".." not in prompt.image_file.split("/")
    return numbers and inside and prompt.text.strip() == prompt.text != "" and "\n" not in prompt.text


@settings(max_examples=400, deadline=None, derandomize=True)
@given(raw=mutated())
def test_any_damage_is_refused_in_one_line_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = write(tmp_path_factory.getbasetemp(), raw)
    try:
        file = load_captions(path)
    except InputError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert refusal.startswith(f"{path}: ")
        assert len(refusal.splitlines()) == 1
        return
    records = json.loads(raw)["annotations"]
    assert [p.caption_id for p in file.prompts] == sorted(r["id"] for r in records)
    assert len({p.caption_id for p in file.prompts}) == len(records)
    assert all(sound(prompt) for prompt in file.prompts)


def pool(count: int) -> list[Prompt]:
    return [
        Prompt(caption_id=i, image_id=i // 5, image_file=f"{i // 5}.jpg", text=f"text {i}")
        for i in range(count)
    ]


def test_select_is_a_prefix_and_ignores_the_order_of_the_file() -> None:
    prompts = pool(200)
    chosen = select(prompts, "digest", 0, 64)
    assert select(prompts, "digest", 0, 32) == chosen[:32]
    assert select(reversed(prompts), "digest", 0, 64) == chosen
    assert len({p.caption_id for p in chosen}) == 64
    assert select(prompts, "digest", 1, 64) != chosen
    assert select(prompts, "other", 0, 64) != chosen
    # Pinned: another draw would silently be another study.
    assert [p.caption_id for p in chosen[:6]] == [100, 43, 160, 97, 111, 182]


def test_select_is_uniform() -> None:
    """Each of 20 captions comes first about equally often: chi-square, 19 df, p < 0.001 at 43.8."""
    prompts = pool(20)
    firsts = [select(prompts, "digest", seed, 1)[0].caption_id for seed in range(2000)]
    counts = [firsts.count(i) for i in range(20)]
    assert sum((c - 100) ** 2 / 100 for c in counts) < 43.8


@pytest.mark.parametrize("n", [0, -1, 201])
def test_select_names_both_numbers(n: int) -> None:
    with pytest.raises(InputError, match=rf"prompts.n={n}: .* 200"):
        select(pool(200), "digest", 0, n)


def test_prompts_digest_depends_on_ids_texts_and_order() -> None:
    prompts = pool(3)
    other = Prompt(caption_id=2, image_id=0, image_file="0.jpg", text="Text 2")
    variants = [prompts, prompts[::-1], prompts[:2], [*prompts[:2], other]]
    assert len({prompts_digest(v) for v in variants}) == len(variants)
    expected = hashlib.sha256(b'[[0,"text 0"],[1,"text 1"],[2,"text 2"]]').hexdigest()
    assert prompts_digest(prompts) == expected


def test_missing_images_are_counted_once(tmp_path: Path) -> None:
    prompts = pool(15)
    (tmp_path / "1.jpg").touch()
    (tmp_path / "2.jpg").mkdir()  # a folder is no image
    missing = missing_images(prompts, tmp_path)
    assert missing == ["0.jpg", "2.jpg"]
    message = missing_message(missing, prompts, tmp_path)
    assert message == (
        f"2 of 3 images are missing in {tmp_path}, first: 0.jpg; "
        "set data.allow_missing=true to go on with the 1 that are there"
    )
    assert missing_images(["1.jpg", "1.jpg"], tmp_path) == []
    assert "allow_missing" not in missing_message(["0.jpg"], ["0.jpg"], tmp_path), "nothing would be left"
    assert "no such image folder" in missing_message(["0.jpg"], ["0.jpg"], tmp_path / "absent")


@real_only
def test_the_real_captions() -> None:
    file = load_captions(REAL / "annotations" / "captions_val2017.json")
    assert len(file.prompts) == 25_014
    assert len(file.image_files) == 5_000
    chosen = select(file.prompts, file.digest, 0, 10_000)
    assert len({p.caption_id for p in chosen}) == 10_000
    # Five captions per image, two fifths drawn: 5000 x (1 - 0.6^5) = 4611 images are expected, sd about 17.
    assert abs(len({p.image_id for p in chosen}) - 4611) < 70
    assert len(missing_images(file.image_files, REAL / "val2017")) == 4_921


@real_only
def test_the_real_subset_is_complete() -> None:
    file = load_captions(REAL / "subset" / "captions_val2017.json")
    assert len(file.image_files) == 79
    assert missing_images(file.prompts, REAL / "val2017") == []
