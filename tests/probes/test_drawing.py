"""Prompts to images: nothing is drawn twice, a prompt gives the same image always, mistakes are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sd2eval.config import CheckpointConfig
from sd2eval.errors import InputError, Stopped
from sd2eval.images import write_png
from sd2eval.probes.base import ProbePrompt, Unavailable
from sd2eval.probes.bench import Workbench
from tests.probes.benches import bench_of

FEW = ("checkpoints=[512-base]", "sampler.steps=2", "shard_size=2")


def prompts(*keys: int, text: str = "A red ball.") -> list[ProbePrompt]:
    return [ProbePrompt(key=key, text=text, group=key) for key in keys]


@pytest.fixture
def drawer(tmp_path: Path) -> tuple[Workbench, CheckpointConfig]:
    bench, (definition,) = bench_of("languages", tmp_path / "drawn", *FEW)
    return bench, definition


def shards(folder: Path) -> int:
    return len(list(folder.rglob("manifest.json")))


def test_a_prompt_is_drawn_once_whatever_it_is_asked_for_with(
    drawer: tuple[Workbench, CheckpointConfig], tmp_path: Path
) -> None:
    bench, definition = drawer
    first = bench.draw(definition, prompts(1, 2, 3))
    assert first.images.shape == (3, 64, 64, 3)
    assert first.valid.all()
    assert shards(tmp_path) == 2
    again = bench.draw(definition, prompts(3, 1))
    assert shards(tmp_path) == 2
    np.testing.assert_array_equal(again.images, first.images[[2, 0]])
    more = bench.draw(definition, prompts(2, 9))
    assert shards(tmp_path) == 3
    np.testing.assert_array_equal(more.images[0], first.images[1])


def test_a_new_process_finds_what_was_drawn(
    drawer: tuple[Workbench, CheckpointConfig], tmp_path: Path
) -> None:
    bench, definition = drawer
    first = bench.draw(definition, prompts(1, 2))
    other, _ = bench_of("people", tmp_path / "drawn", *FEW)
    readings = len(other.shelf.studio.meter.readings)
    np.testing.assert_array_equal(other.draw(definition, prompts(1, 2)).images, first.images)
    assert len(other.shelf.studio.meter.readings) == readings


def test_the_noise_belongs_to_the_key_and_not_to_the_text(drawer: tuple[Workbench, CheckpointConfig]) -> None:
    bench, definition = drawer
    here = bench.draw(definition, prompts(1, 2)).images
    there = bench.draw(definition, prompts(1, 2, text="Una bola roja.")).images
    apart = np.abs(here.astype(int) - there).mean(axis=(1, 2, 3))
    between = np.abs(here[0].astype(int) - here[1]).mean()
    assert 0 < apart.max() < between


def test_scale_and_seed_have_folders_of_their_own(
    drawer: tuple[Workbench, CheckpointConfig], tmp_path: Path
) -> None:
    bench, definition = drawer
    plain = bench.draw(definition, prompts(1)).images
    assert (bench.draw(definition, prompts(1), guidance_scale=8.0).images != plain).any()
    other, _ = bench_of("languages", tmp_path / "drawn", *FEW, "seed=7")
    assert (other.draw(definition, prompts(1)).images != plain).any()
    assert len(list((tmp_path / "drawn").iterdir())) == 3


def test_two_prompts_of_one_key_are_refused(drawer: tuple[Workbench, CheckpointConfig]) -> None:
    bench, definition = drawer
    with pytest.raises(InputError, match="prompt 4: the key is there twice"):
        bench.draw(definition, prompts(4, 5, 4))


def test_an_image_conditioned_checkpoint_is_unavailable(tmp_path: Path) -> None:
    bench, (definition,) = bench_of("languages", tmp_path, "checkpoints=[512-depth]")
    with pytest.raises(Unavailable, match=r"'512-depth' starts from an image \(depth\)"):
        bench.draw(definition, prompts(1))


def test_a_picture_that_was_changed_is_refused(
    drawer: tuple[Workbench, CheckpointConfig], tmp_path: Path
) -> None:
    bench, definition = drawer
    bench.draw(definition, prompts(1))
    (file,) = tmp_path.rglob("1.png")
    write_png(file, np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="is not the picture that was drawn"):
        bench.draw(definition, prompts(1))


def test_an_interrupted_drawing_goes_on_where_it_was(
    drawer: tuple[Workbench, CheckpointConfig], tmp_path: Path
) -> None:
    bench, definition = drawer
    studio = bench.shelf.studio
    advance = studio.progress.advance

    def stop_after_the_first_shard(images: int, captions: int = 0) -> None:
        advance(images, captions)
        if captions:
            studio.interrupt.requested = "SIGINT"

    studio.progress.advance = stop_after_the_first_shard  # type: ignore[method-assign]
    with pytest.raises(Stopped, match="SIGINT"):
        bench.draw(definition, prompts(1, 2, 3, 4))
    assert shards(tmp_path) == 1
    again, _ = bench_of("languages", tmp_path / "drawn", *FEW)
    drawn = again.draw(definition, prompts(1, 2, 3, 4))
    assert shards(tmp_path) == 2
    whole, _ = bench_of("languages", tmp_path / "other", *FEW)
    np.testing.assert_array_equal(drawn.images, whole.draw(definition, prompts(1, 2, 3, 4)).images)


def test_what_is_drawn_is_a_run_that_verify_reads(
    drawer: tuple[Workbench, CheckpointConfig], tmp_path: Path
) -> None:
    bench, definition = drawer
    bench.draw(definition, prompts(1, 2))
    (run,) = tmp_path.rglob("run.json")
    info = json.loads(run.read_text())
    assert info["identity_fields"]["seed"] == 0
    assert info["digests"]["weights/512-base"] == bench.shelf.studio.weights["512-base"].digest


def test_energy_of_drawing_is_not_that_of_measuring(drawer: tuple[Workbench, CheckpointConfig]) -> None:
    bench, definition = drawer
    studio = bench.shelf.studio
    with studio.counted("probe languages"):
        bench.draw(definition, prompts(1))
    stages = [reading.stage for reading in studio.meter.readings]
    assert stages[0] == stages[-1] == "probe languages"
    assert {"load", "sample", "decode"} <= set(stages[1:-1])
