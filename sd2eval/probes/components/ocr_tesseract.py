"""Tesseract, run as a program of its own: words of text.

`source` is the program; else the one on PATH. Options: `language` (default `eng`), `layout` (its page
segmentation mode; default 11, text anywhere).
"""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sd2eval.config import ComponentConfig
from sd2eval.errors import InputError
from sd2eval.probes.base import Unavailable
from sd2eval.probes.components.base import files_digest, loading, local_source
from sd2eval.probes.sightings import Word

PROGRAM = "tesseract"
SECONDS = 120
OF_MACHINE = "Found"
"""Begins the lines of its version that name features of the processor."""
WORD = "5"
"""Level of a word in its table."""


@dataclass(frozen=True, kw_only=True)
class TesseractReader:
    """Reads words."""

    name: str
    digest: str
    program: Path
    language: str
    layout: int

    def read(self, images: NDArray[np.uint8]) -> list[list[Word]]:
        """Return the words of each image, uint8 [N, H, W, 3], in its reading order."""
        return [_words(self._table(image)) for image in images]

    def _table(self, image: NDArray[np.uint8]) -> str:
        picture = io.BytesIO()
        Image.fromarray(image).save(picture, "PNG")
        arguments = ["stdin", "stdout", "-l", self.language, "--psm", str(self.layout), "tsv"]
        return _run(self.program, arguments, picture.getvalue())


def load(config: ComponentConfig, device: torch.device) -> TesseractReader:
    """Find the program and its data of the language.

    Raises:
        Unavailable: see `identity`.
    """
    digest = identity(config)
    return TesseractReader(
        name=config.name,
        digest=digest,
        program=_program(config),
        language=_language(config),
        layout=int(config.options.get("layout", 11)),
    )


def identity(config: ComponentConfig) -> str:
    """Return the SHA-256 over the program, the versions it tells (of its libraries too), and its data.

    Raises:
        Unavailable: the program is not there, fails, or lacks the language.
    """
    with loading(config):
        program, language = _program(config), _language(config)
        files, told = [program], _run(program, ["--version"], b"").splitlines()
        versions = [line for line in told if not line.strip().startswith(OF_MACHINE)]
        listing = _run(program, ["--list-langs"], b"").splitlines()
        if language not in listing[1:]:
            raise InputError(
                f"{program} has no data of '{language}'; it has {', '.join(listing[1:]) or 'none'}"
            )
        folder = Path(listing[0].split('"')[1]) if '"' in listing[0] else program.parent
        data = folder / f"{language}.traineddata"
        files += [data] if data.is_file() else []
        return hashlib.sha256(f"{versions}{files_digest(files)}".encode()).hexdigest()


def _language(config: ComponentConfig) -> str:
    return str(config.options.get("language", "eng"))


def _program(config: ComponentConfig) -> Path:
    if config.source:
        return local_source(config)
    found = shutil.which(PROGRAM)
    if found is None:
        raise Unavailable(
            f"component '{config.name}': no program {PROGRAM}; install it with the system's packages "
            f"(Debian: apt-get install tesseract-ocr), or name it by components.{config.name}.source=FILE"
        )
    return Path(found)


def _run(program: Path, arguments: list[str], entry: bytes) -> str:
    """Return what the program prints.

    Raises:
        InputError: it cannot be run, fails or hangs.
    """
    try:
        done = subprocess.run(
            [str(program), *arguments], input=entry, capture_output=True, timeout=SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error).encode()
        raise InputError(f"{program}: {' '.join(told.decode(errors='replace').split())[:200]}") from error
    return done.stdout.decode(errors="replace")


def _words(table: str) -> list[Word]:
    rows = csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [_word(row) for row in rows if row["level"] == WORD and row["text"].strip()]


def _word(row: dict[str, str]) -> Word:
    left, top, width, height = (float(row[key]) for key in ("left", "top", "width", "height"))
    confidence = max(float(row["conf"]), 0.0) / 100
    return Word(text=row["text"].strip(), confidence=confidence, box=(left, top, left + width, top + height))
