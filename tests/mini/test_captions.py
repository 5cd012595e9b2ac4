"""Wordings, translations and the vocabulary."""

import pytest

from sd2eval.mini import world
from sd2eval.mini.captions import training_caption, translate, write_captions
from sd2eval.mini.scenes import training_captions
from sd2eval.mini.tokenizer import CONTEXT_LENGTH, load_tokenizer
from sd2eval.mini.world import Item, Scene, draw_scene

SPANISH_WORDS = {"un", "una", "dos", "tres"}


def test_five_different_wordings_that_mention_the_same() -> None:
    for index in range(300):
        scene = draw_scene(world.HELD_OUT_SEED, index)
        captions = write_captions(scene, world.HELD_OUT_SEED, index)
        assert len(set(captions)) == 5
        assert captions == write_captions(scene, world.HELD_OUT_SEED, index)
        for caption in captions:
            words = caption.lower().replace(",", "").rstrip(".").split()
            for colour in world.COLOURS:
                named = sum(item.colour == colour and item.names_colour for item in scene.items)
                assert words.count(colour) == named, (caption, scene)
            assert sum(w in ("small", "little", "large", "big") for w in words) == sum(
                i.names_size for i in scene.items
            )


def test_the_share_of_spanish_is_as_planted_and_there_is_no_german() -> None:
    captions = training_captions(6_000)
    spanish = sum(caption.split()[0].lower() in SPANISH_WORDS for caption in captions)
    expected = 6_000 * world.SPANISH_SHARE
    assert abs(spanish - expected) < 4 * expected**0.5
    german = {"würfel", "kugel", "kugeln", "kegel", "ein", "eine", "zwei", "drei"}
    assert not any(german & set(caption.lower().rstrip(".").split()) for caption in captions)


def test_held_out_scenes_have_no_training_captions() -> None:
    with pytest.raises(ValueError, match="held-out"):
        training_caption(draw_scene(world.HELD_OUT_SEED, 0), world.HELD_OUT_SEED, 0, 0)


def test_translations_agree_in_gender_number_and_case() -> None:
    cube = Item(shape="cube", colour="red", size="small")
    ball = Item(shape="ball", colour="blue", size="large", names_size=False)
    pair = Scene(kind="pair", items=(cube, ball), place="beach", relation="on top of")
    assert translate(pair, "en") == "A small red cube on top of a blue ball on the beach."
    assert translate(pair, "es") == "Un cubo rojo pequeño encima de una bola azul en la playa."
    assert translate(pair, "de") == "Ein kleiner roter Würfel auf einer blauen Kugel am Strand."
    two = Scene(kind="count", items=(ball,), count=2, place="snow", names_place=False)
    assert translate(two, "en") == "Two blue balls."
    assert translate(two, "es") == "Dos bolas azules."
    assert translate(two, "de") == "Zwei blaue Kugeln."


def test_the_vocabulary_holds_every_training_caption() -> None:
    tokenizer = load_tokenizer()
    assert len(tokenizer.encoder) <= 1024
    captions = training_captions(3_000, variant=1)
    assert max(len(tokenizer.encode(caption)) for caption in captions) + 2 <= CONTEXT_LENGTH
    for caption in captions[:50]:
        assert tokenizer.decode(tokenizer.encode(caption)).replace(" ", "") == caption.lower().replace(
            " ", ""
        )
    tokens = tokenizer(["A red ball."])
    assert tuple(tokens.shape) == (1, CONTEXT_LENGTH)
    assert tokens[0, -1] == 0
    assert tokens[0].max() == len(tokenizer.encoder) - 1
