"""Tesseract is a program of its own: one that answers in its format stands in for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sd2eval.probes import registry
from sd2eval.probes.base import NO_PROMPTS, Unavailable
from sd2eval.probes.identity import identity
from sd2eval.probes.sightings import Word
from tests.probes.benches import bench_of
from tests.probes.making import loaded

WITH_TESSERACT = ("checkpoints=[512-base]", "settings.legible_text.components.reader=ocr_tesseract")
TABLE = (
    "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n"
    "1\t1\t0\t0\t0\t0\t0\t0\t64\t64\t-1\t\n"
    '5\t1\t1\t1\t1\t1\t10\t20\t30\t8\t91.5\t"OPEN\n'
    "5\t1\t1\t1\t1\t2\t45\t20\t12\t8\t-1\t \n"
    "5\t1\t1\t1\t1\t3\t45\t20\t12\t8\t-1\tNOW\n"
)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Lists its language, or checks that it was given a PNG and prints a table."""
    (tmp_path / "table.tsv").write_text(TABLE)
    (tmp_path / "eng.traineddata").write_text("data")
    (tmp_path / "version").write_text("tesseract 5.3.0\n leptonica-1.82.0\n Found AVX\n")
    path = tmp_path / "tesseract"
    path.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --list-langs ]; then\n'
        f"echo 'List of available languages in \"{tmp_path}/\" (1):'; echo eng\n"
        f'elif [ "$1" = --version ]; then cat "{tmp_path}/version"\n'
        f'else head -c 4 | grep -q PNG || exit 3; cat "{tmp_path}/table.tsv"; fi\n'
    )
    path.chmod(0o755)
    return path


def test_words_of_its_table_are_read(program: Path) -> None:
    reader = loaded("ocr_tesseract", source=str(program))
    assert reader.read(np.zeros((1, 64, 64, 3), np.uint8)) == [
        [
            Word(text='"OPEN', confidence=0.915, box=(10, 20, 40, 28)),
            Word(text="NOW", confidence=0.0, box=(45, 20, 57, 28)),
        ]
    ]


def test_the_digest_changes_with_the_program_its_version_and_the_languages_data(program: Path) -> None:
    digests = {loaded("ocr_tesseract", source=str(program)).digest}
    (program.parent / "version").write_text("tesseract 5.3.0\n leptonica-1.82.0\n Found SSE\n")
    assert loaded("ocr_tesseract", source=str(program)).digest in digests  # another processor
    (program.parent / "eng.traineddata").write_text("other data")
    digests.add(loaded("ocr_tesseract", source=str(program)).digest)
    (program.parent / "version").write_text("tesseract 5.5.0")  # of the library, which is no part of the file
    digests.add(loaded("ocr_tesseract", source=str(program)).digest)
    program.write_text(f"{program.read_text()}\n")
    digests.add(loaded("ocr_tesseract", source=str(program)).digest)
    assert len(digests) == 4


def test_what_an_answer_rests_on_holds_the_program_of_the_path(
    program: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    bench, (checkpoint,) = bench_of("legible_text", tmp_path, *WITH_TESSERACT)
    fields = []
    for data in ("old", "new"):
        (program.parent / "eng.traineddata").write_text(data)
        fields.append(identity(registry.find("legible_text"), NO_PROMPTS, bench, checkpoint))
    assert fields[0].keys() == fields[1].keys()
    changed = {key for key, value in fields[0].items() if fields[1][key] != value}
    assert changed == {"components.ocr_tesseract.installed_sha256"}


def test_without_the_program_the_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="apt-get install tesseract-ocr"):
        loaded("ocr_tesseract")


def test_a_language_that_it_lacks_and_a_program_that_fails_give_one_line(program: Path) -> None:
    with pytest.raises(Unavailable, match="has no data of 'deu'; it has eng"):
        loaded("ocr_tesseract", source=str(program), options={"language": "deu"})
    program.write_text("#!/bin/sh\necho broken library >&2\nexit 1\n")
    with pytest.raises(Unavailable, match="broken library"):
        loaded("ocr_tesseract", source=str(program))
