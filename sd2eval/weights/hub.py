"""Files from the Hugging Face hub by huggingface_hub: its cache, HF_HOME, HF_ENDPOINT, offline mode, token.

What huggingface_hub does not do (2.4 deletes the unfinished file of a download that ends early) is done here:
a large file is downloaded with `download.fetch` to where the cache keeps it, so that the next command goes on
from there, and is checked against the SHA-256 that the hub names it by. huggingface_hub then finds it there.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented there, but not in its __all__
    build_hf_headers,
    disable_progress_bars,
    filter_repo_objects,
    logging,
)

from sd2eval.errors import InputError
from sd2eval.transfer.digests import fault_of
from sd2eval.transfer.download import Patience, fetch, kept_bytes, need_space
from sd2eval.weights.hub_errors import TransportError, one_line, passes

PAUSES = (1.0, 2.0)
"""Seconds before the second and the third try of a question that costs the hub little."""
Answer = TypeVar("Answer")

# Bars and hints about tokens would tear the sweep's own display.
disable_progress_bars()
logging.set_verbosity_error()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class _Blob:
    """A large file on the hub."""

    name: str
    commit: str
    sha256: str
    size: int


def file(
    repository: str,
    name: str,
    revision: str | None = None,
    *,
    progress: bool = True,
    patience: Patience | None = None,
) -> Path:
    """Return a file of a repository, from the cache or downloaded.

    Args:
        repository: hub id, `owner/name`.
        name: path in the repository.
        revision: branch, tag or commit; None for `main`.
        progress: show a bar or lines on stderr.
        patience: timeouts and tries of the download.

    Raises:
        InputError: it cannot be had; one line that says what, where and what to do.
        Stopped: the connection broke off; what came is kept and the next call goes on from there.
    """

    def online() -> Path:
        metadata = _persistently(
            lambda: get_hf_file_metadata(hf_hub_url(repository, name, revision=revision))
        )
        etag, commit, size = metadata.etag, metadata.commit_hash, metadata.size
        if commit and size is not None and _is_sha256(etag):
            _download(repository, [_Blob(name, commit, str(etag), size)], progress, patience)
        return Path(hf_hub_download(repository, name, revision=revision))

    def cached() -> Path:
        return Path(hf_hub_download(repository, name, revision=revision, local_files_only=True))

    with one_line(repository, name, revision):
        return _first_of(online, cached)


def snapshot(
    repository: str,
    revision: str | None,
    patterns: Sequence[str],
    ignore: Sequence[str] = (),
    *,
    progress: bool = True,
    patience: Patience | None = None,
) -> Path:
    """Return the folder with all files of a repository that match, from the cache or downloaded.

    Args:
        repository: hub id, `owner/name`.
        revision: branch, tag or commit; None for `main`.
        patterns: files to take, such as `unet/*.json`.
        ignore: files to leave out of them.
        progress: show a bar or lines on stderr.
        patience: timeouts and tries of the download.

    Raises:
        InputError: they cannot be had; one line that says what, where and what to do.
        Stopped: the connection broke off; what came is kept and the next call goes on from there.
    """

    def folder(local: bool) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(ignore),
                local_files_only=local,
            )
        )

    def online() -> Path:
        blobs = list(_blobs(repository, revision, patterns, ignore))
        _download(repository, blobs, progress, patience)
        return folder(local=False)

    with one_line(repository, f"its files {', '.join(patterns)}", revision):
        return _first_of(online, lambda: folder(local=True))


def in_cache(repository: str, name: str) -> Path | None:
    """Return a file that the cache already has, the `main` one before other revisions; never asks the hub."""
    found = try_to_load_from_cache(repository, name)
    if isinstance(found, str):
        return Path(found)
    snapshots = (_repository_folder(repository) / "snapshots").glob(f"*/{name}")
    there = [path for path in snapshots if path.is_file()]
    return max(there, key=lambda path: path.stat().st_mtime, default=None)


def cache_root() -> Path:
    """Return the folder of huggingface_hub's cache."""
    return Path(constants.HF_HUB_CACHE)


def promised_digest(path: Path) -> str | None:
    """Return the SHA-256 under which the hub gave a cached file, or None for a small or foreign file."""
    name = path.resolve().name
    return name if _is_sha256(name) else None


def discard(path: Path) -> None:
    """Remove a file from the cache, so that the next call downloads it anew."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _first_of(online: Callable[[], Path], cached: Callable[[], Path]) -> Path:
    """Ask the hub; where it cannot answer, what the cache has is as good."""
    if constants.is_offline_mode():
        return cached()
    try:
        return online()
    except (RevisionNotFoundError, EntryNotFoundError):
        raise  # the hub did answer
    except TransportError as error:
        try:
            return cached()
        except LocalEntryNotFoundError:
            raise error from None


def _blobs(
    repository: str, revision: str | None, patterns: Sequence[str], ignore: Sequence[str]
) -> Iterator[_Blob]:
    """Yield the large files among those that match."""
    info = _persistently(lambda: HfApi().model_info(repository, revision=revision, files_metadata=True))
    there = {sibling.rfilename: sibling for sibling in info.siblings or []}
    names = list(filter_repo_objects(there, allow_patterns=list(patterns), ignore_patterns=list(ignore)))
    if not names:
        raise InputError(f"{repository} has no files like {', '.join(patterns)}")
    for name in names:
        large = there[name].lfs
        if info.sha and large and _is_sha256(large.sha256):
            yield _Blob(name, info.sha, large.sha256, large.size)


def _download(repository: str, blobs: Sequence[_Blob], progress: bool, patience: Patience | None) -> None:
    """Put the blobs that are missing where huggingface_hub's cache keeps them."""
    folder = _repository_folder(repository) / "blobs"
    missing = [blob for blob in blobs if not _has(repository, blob) and not _borrow(folder, blob)]
    need = sum(blob.size - kept_bytes(folder / blob.sha256) for blob in missing)
    need_space(folder, need, f"what is missing of {repository}")
    for blob in missing:
        fetch(
            hf_hub_url(repository, blob.name, revision=blob.commit),
            folder / blob.sha256,
            size=blob.size,
            digest=f"sha256:{blob.sha256}",
            progress=progress,
            label=blob.name,
            patience=patience,
            headers=_authorization(),
        )


def _borrow(folder: Path, blob: _Blob) -> bool:
    """Link a blob that the cache has under another repository: mirrors hold what was published elsewhere."""
    for other in cache_root().glob(f"models--*/blobs/{blob.sha256}"):
        if fault_of(other, size=blob.size, digest=f"sha256:{blob.sha256}"):
            continue
        with contextlib.suppress(OSError):  # a disk without hard links: download it
            folder.mkdir(parents=True, exist_ok=True)
            (folder / blob.sha256).hardlink_to(other.resolve())
            return True
    return False


def _has(repository: str, blob: _Blob) -> bool:
    if (_repository_folder(repository) / "blobs" / blob.sha256).exists():
        return True
    # A cache on a disk without symbolic links has no blobs.
    return isinstance(try_to_load_from_cache(repository, blob.name, revision=blob.commit), str)


def _repository_folder(repository: str) -> Path:
    return cache_root() / repo_folder_name(repo_id=repository, repo_type="model")


def _authorization() -> dict[str, str]:
    """Return the header with the user's token; empty without one."""
    headers = build_hf_headers()
    return {name: value for name, value in headers.items() if name.lower() == "authorization"}


def _persistently(ask: Callable[[], Answer]) -> Answer:
    """Ask up to three times while the hub is overloaded or the connection fails."""
    for pause in PAUSES:
        try:
            return ask()
        except TransportError as error:
            if not passes(error):
                raise
        time.sleep(pause)
    return ask()


def _is_sha256(text: str | None) -> bool:
    return text is not None and re.fullmatch("[0-9a-f]{64}", text) is not None
