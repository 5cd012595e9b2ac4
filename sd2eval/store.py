"""The run folder: the only module that knows paths.

Every file is written under a temporary name, flushed to the disk and renamed; a shard is a folder published
by one rename, which fails if the shard is there already. Whenever a run is killed, what is visible is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sd2eval.cache import cache_folder
from sd2eval.errors import InputError
from sd2eval.events import FILE as EVENTS
from sd2eval.lock import Writer, held
from sd2eval.plan import Block, Cell
from sd2eval.records import SCHEMA_VERSION, EnergyReading, ImageRecord, Prompt, RunInfo
from sd2eval.seals import seal, to_bytes, unseal
from sd2eval.transfer.digests import file_digest

Arrays = Mapping[str, NDArray[Any]]

TEMPORARY = ".tmp-"
DIGESTS = "digests.json"
"""Sealed: the SHA-256 of each file that is written once, and `run.json` a second time."""
WRITER, CLAIMS, FAILED, LOGS = ".writer", "claims", "failed", "slurm"
"""What engines put there: the driver's token, who makes which shard, what was given up, what jobs printed."""
WAY_OUT = "`python -m sd2eval verify {} --repair` moves it aside and makes it again"


class RunFolder:
    """One sweep on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def at(cls, path: str | Path) -> Self:
        """Return the run folder that a user named: the folder, or the run.json in it."""
        named = Path(path).expanduser()
        return cls(named.parent if named.name == "run.json" and named.is_file() else named)

    # What was run

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").exists()

    @property
    def begun(self) -> bool:
        """Whether a shard is published: until then nothing would be lost by another run."""
        return any((self.path / "shards").glob(f"*/[!{TEMPORARY[0]}]*"))

    def restart(self) -> None:
        """Remove what a run left that never published a shard."""
        for name in ("sessions", "images", "sheets"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("prompts.json", "reference.npz", "run.json", DIGESTS):
            (self.path / name).unlink(missing_ok=True)

    def read_info(self, known: Mapping[str, Any] | None = None) -> RunInfo:
        """Return `run.json`.

        Args:
            known: the record of digests, if it was read already.

        Raises:
            InputError: there is no run here, it is damaged, or a newer sd2eval wrote it.
        """
        file = self.path / "run.json"
        try:
            data = json.loads(self._as_written(file.name, known))
            version = data["schema_version"]
            if version > SCHEMA_VERSION:
                raise InputError(
                    f"{file}: written by a newer sd2eval (schema {version}; this one reads {SCHEMA_VERSION})"
                )
            return RunInfo(**data)
        except NotADirectoryError:
            raise InputError(f"{self.path}: is a file; a run folder is needed") from None
        except FileNotFoundError:
            way_out = self._copy() if self.begun else ""
            raise InputError(f"{self.path}: no run here (run.json is missing){way_out}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: not a readable run record ({error}){self._copy()}") from error

    def _copy(self) -> str:
        """Return how `run.json` comes back from its copy, where there is one."""
        try:
            return f"; {WAY_OUT.format(self.path)}" if "run" in self.read_digests() else ""
        except InputError:
            return ""

    def write_info(self, info: RunInfo) -> None:
        """Write `run.json`."""
        self._write_once("run.json", to_bytes(info.to_json()), run=info.to_json())

    def write_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Record the prompts in order; positions in shards refer to it."""
        self._write_once("prompts.json", to_bytes([asdict(prompt) for prompt in prompts]))

    def read_prompts(self, known: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the recorded prompts (fields of `Prompt`).

        Args:
            known: the record of digests, if it was read already.

        Raises:
            InputError: they are missing or damaged.
        """
        file = self.path / "prompts.json"
        try:
            prompts = json.loads(self._as_written(file.name, known))
            if not isinstance(prompts, list) or not prompts:
                raise ValueError("not a list of prompts")
            if not all({"caption_id", "image_id"} <= prompt.keys() for prompt in prompts):
                raise ValueError("a prompt without its ids")
            return prompts
        except (OSError, ValueError, AttributeError) as error:
            what = f"damaged ({error})" if file.exists() else "missing"
            raise InputError(f"{file}: {what}; {WAY_OUT.format(self.path)}") from error

    def _as_written(self, name: str, known: Mapping[str, Any] | None) -> bytes:
        """Return the bytes of a file that is written once, if they are what was written."""
        raw = (self.path / name).read_bytes()
        self._compare(name, hashlib.sha256(raw).hexdigest(), known)
        return raw

    def _compare(self, name: str, found: str, known: Mapping[str, Any] | None) -> None:
        """Hold a digest against the recorded one, which is on the disk before its file ever is.

        Raises:
            ValueError: it is another one.
        """
        files = (self.read_digests() if known is None else known).get("files", {})
        if files.get(name, found) != found:
            raise ValueError("it was changed since it was written: its SHA-256 differs")

    def read_digests(self) -> dict[str, Any]:
        """Return `files` (name to SHA-256) and `run` (as `run.json`) of the record beside them; old runs: {}.

        Raises:
            InputError: it is damaged.
        """
        try:
            return unseal((self.path / DIGESTS).read_bytes(), required=True)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            way_out = WAY_OUT.format(self.path)
            raise InputError(f"{self.path / DIGESTS}: damaged ({error}); {way_out}") from error

    def renew_digests(self, info: RunInfo) -> None:
        """Write the record of digests again, from the files that are there."""
        names = ("prompts.json", "reference.npz", "run.json")
        files = {name: file_digest(self.path / name) for name in names if self.has(name)}
        self.write_sealed(DIGESTS, {"files": files, "run": info.to_json()})

    def _write_once(self, name: str, data: bytes, **more: Any) -> None:
        """Write a file after its digest, so that none is ever without."""
        known = self.read_digests()
        files = known.get("files", {}) | {name: hashlib.sha256(data).hexdigest()}
        self.write_sealed(DIGESTS, known | {"files": dict(sorted(files.items()))} | more)
        write_bytes(self.path / name, data)

    # Shards

    def blocks(self, checkpoint: str) -> list[Block]:
        """Return the published blocks of a checkpoint, in order.

        Raises:
            InputError: something else lies there.
        """
        folder = self.path / "shards" / checkpoint
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        try:
            return sorted(Block.parse(name) for name in names if not name.startswith("."))
        except ValueError:
            way_out = WAY_OUT.format(self.path)
            raise InputError(f"{folder}: holds something that is no shard; {way_out}") from None

    def publish(
        self,
        checkpoint: str,
        block: Block,
        arrays: Arrays,
        images: Sequence[ImageRecord],
        energy: Sequence[EnergyReading],
        scales: Sequence[float],
        kept: str | None = None,
    ) -> None:
        """Make a finished shard visible, whole or not at all.

        Args:
            checkpoint: whose shard.
            block: its captions.
            arrays: features, each [len(block), len(scales), d].
            images: one record per caption and scale.
            energy: what the shard cost, by stage.
            scales: order of the second axis.
            kept: which of its pictures are in the run folder: `all`, `grid` or `none`.
        """
        target = self.path / "shards" / checkpoint / block.key
        temporary = target.parent / f"{TEMPORARY}{block.key}-{uuid.uuid4().hex[:8]}"
        temporary.mkdir(parents=True)
        features = _npz(arrays)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "checkpoint": checkpoint,
            "guidance_scales": list(scales),
            "features_sha256": hashlib.sha256(features).hexdigest(),
            "images": [asdict(image) for image in images],
            "energy": [asdict(reading) for reading in energy],
        }
        if kept is not None:
            manifest["kept"] = kept
        _write(temporary / "features.npz", features)
        _write(temporary / "manifest.json", seal(manifest))
        _sync(temporary)
        try:
            temporary.rename(target)  # fails on a published shard, which is not empty
        except OSError:
            shutil.rmtree(temporary)
            if not target.is_dir():
                raise
        _sync(target.parent)

    def read_shard(self, checkpoint: str, block: Block) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return a shard's arrays and manifest.

        Raises:
            InputError: a file is damaged; the message says how to have it made again.
        """
        folder = self.path / "shards" / checkpoint / block.key
        try:
            manifest = unseal((folder / "manifest.json").read_bytes())
            data = (folder / "features.npz").read_bytes()
            if hashlib.sha256(data).hexdigest() != manifest["features_sha256"]:
                raise ValueError("features.npz does not have the digest its manifest names")
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return dict(archive), manifest
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(folder, error) from error

    def read_manifest(self, checkpoint: str, block: Block) -> dict[str, Any]:
        """Return a shard's manifest alone.

        Raises:
            InputError: it is damaged.
        """
        folder = self.path / "shards" / checkpoint / block.key
        try:
            return unseal((folder / "manifest.json").read_bytes())
        except (OSError, ValueError) as error:
            raise self._damaged(folder, error) from error

    def _damaged(self, folder: Path, error: Exception) -> InputError:
        return InputError(f"{folder}: damaged shard ({error}); {WAY_OUT.format(self.path)}")

    def half_written(self) -> list[Path]:
        """Return what killed processes left half-written, where a run writes and nowhere else."""
        folders = ("", "sessions/", "shards/*/")
        ours = [*(f"{folder}{TEMPORARY}*" for folder in folders), "sheets/.*.tmp", "images/*/.*.tmp"]
        return sorted(path for pattern in ours for path in self.path.glob(pattern))

    def clean(self) -> None:
        """Remove what a killed process left half-written."""
        for leftover in self.half_written():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)

    # Other files

    def image_folder(self, cell: Cell) -> Path:
        """Return the folder of a cell's PNG files."""
        return self.path / "images" / cell.key

    def sheet(self, checkpoint: str) -> Path:
        """Return the path of a checkpoint's contact sheet."""
        return self.path / "sheets" / f"{checkpoint}.png"

    def write_session(
        self,
        session: str,
        readings: Sequence[tuple[str, EnergyReading]],
        grid: str,
        basis: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        """Record what a process spent outside shards.

        Args:
            session: its name.
            readings: what was spent, each with the checkpoint it was spent on, or "".
            grid: the electricity grid that is assumed.
            basis: what of the energy was assumed and why.
            notes: what else a reader of the run should know.
        """
        rows = [{"checkpoint": checkpoint} | asdict(reading) for checkpoint, reading in readings]
        note = "; ".join(filter(None, [basis, *notes]))
        record = {"grid": grid, "note": note, "notes": list(notes), "readings": rows}
        self.write_sealed(f"sessions/{session}.json", record)

    def read_sessions(self) -> list[dict[str, Any]]:
        """Return all session records, in the order of their names.

        Raises:
            InputError: one is damaged.
        """
        return [self._session(file) for file in sorted(self.path.glob("sessions/*.json"))]

    def _session(self, file: Path) -> dict[str, Any]:
        try:
            return unseal(file.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: damaged ({error}); {WAY_OUT.format(self.path)}") from error

    def write_arrays(self, name: str, arrays: Arrays) -> None:
        """Write `<name>.npz`."""
        self._write_once(f"{name}.npz", _npz(arrays))

    def read_arrays(self, name: str, known: Mapping[str, Any] | None = None) -> dict[str, NDArray[Any]]:
        """Return the arrays of `<name>.npz`.

        Args:
            name: without its ending.
            known: the record of digests, if it was read already.

        Raises:
            ValueError: it was changed since it was written.
        """
        file = self.path / f"{name}.npz"
        with file.open("rb") as stream:  # numpy leaves a file open that is no archive
            self._compare(file.name, hashlib.file_digest(stream, "sha256").hexdigest(), known)
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as archive:
                return dict(archive)

    def has(self, name: str) -> bool:
        """Whether a file of that name is there."""
        return (self.path / name).exists()

    def write_json(self, name: str, data: Any) -> Path:
        """Write `name` as JSON and return its path."""
        return write_bytes(self.path / name, to_bytes(data))

    def write_sealed(self, name: str, data: Mapping[str, Any]) -> Path:
        """Write `name` as JSON with its own digest, see `seals`, and return its path."""
        return write_bytes(self.path / name, seal(data))

    def refuse_foreign(self) -> None:
        """Refuse a folder that holds something else than a run, before anything is written into it.

        Raises:
            InputError: names the folder and the first file that is not a run's.
        """
        if self.exists or not self.path.exists():
            return
        if not self.path.is_dir():
            raise InputError(f"out={self.path}: is a file; give a folder")
        begun = {".lock", EVENTS, "sessions", "prompts.json", DIGESTS}  # before its run.json
        begun |= {WRITER, CLAIMS, FAILED, LOGS}
        others = (entry.name for entry in self.path.iterdir() if not entry.name.startswith(TEMPORARY))
        foreign = sorted(set(others) - begun)
        if foreign and self.begun:
            self.read_info()  # says that a run has lost its record, and how that comes back
        if foreign:
            raise InputError(f"out={self.path}: holds {foreign[0]} but no run; give an empty or a new folder")

    def lock(self, writer: Writer = "sweep") -> AbstractContextManager[None]:
        """Hold the folder for one writer, see `lock.held`."""
        return held(self.path, writer)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file atomically: temporary name, flushed to the disk, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{path.name}-{uuid.uuid4().hex[:8]}"
    _write(temporary, data)
    temporary.replace(path)
    return path


def read_cached(key: str) -> NDArray[Any] | None:
    """Return the cached array of a content digest, or None; a damaged file counts as absent."""
    try:
        return np.load(cache_folder() / f"{key}.npy", allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError):
        return None


def write_cached(key: str, array: NDArray[Any]) -> None:
    """Cache an array under a content digest; a cache that cannot be written is only slower next time."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    try:
        write_bytes(cache_folder() / f"{key}.npy", buffer.getvalue())
    except OSError:
        return


def _npz(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
