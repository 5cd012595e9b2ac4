"""The weights that the studies use: what there is, what is here, whether it is right, and how to get it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from huggingface_hub import constants

from sd2eval import words
from sd2eval.errors import InputError
from sd2eval.transfer import download
from sd2eval.transfer.meter import Meter
from sd2eval.weights import first_use, hub
from sd2eval.weights.hub_errors import LOCAL_COPY
from sd2eval.weights.inventory import (
    Holding,
    holding,
    locate,
    note_digest,
    noted_digest,
    torch_hub_folder,
)
from sd2eval.weights.published import TABLE, Published, by_digest, file_digest, published

ALL = "all"
Say = Callable[[str], None]


def holdings(table: Path = TABLE) -> list[Holding]:
    """Return every entry of the table and what this machine has of it; hashes nothing, asks no network."""
    return [holding(entry) for entry in published(table).values()]


def verify_models(
    names: Sequence[str], table: Path = TABLE, *, progress: bool = True, say: Say = print
) -> bool:
    """Hash what is here and say for each whether it is right; return whether all is.

    Args:
        names: entries of the table, or files on this machine; none means everything that is here.
        table: the published weights.
        progress: show how far hashing is on stderr.
        say: takes each line.

    Raises:
        InputError: a name is neither an entry nor a file, or a named entry is not here.
    """
    entries = published(table)
    judged = [_judge_name(name, table, progress, say) for name in names]
    if not names:
        judged = [_judge(holding(entry), table, progress, say) for entry in entries.values()]
    return all(judged)


def fetch_models(
    names: Sequence[str], table: Path = TABLE, *, progress: bool = True, say: Say = print
) -> None:
    """Download weights, check them, and say where they lie and how to use them.

    Args:
        names: entries of the table; `all` stands for those a study needs.
        table: the published weights.
        progress: show bars or lines on stderr.
        say: takes each line.

    Raises:
        InputError: one of them could not be had or is not what it should be; the others were tried as well.
        Stopped: the connection broke off; the next call goes on from there.
    """
    entries = _chosen(names, table)
    _need_space(entries)
    failures: dict[str, str] = {}
    for entry in entries:
        try:
            path = _fetch(entry, table, progress)
        except InputError as error:
            failures[entry.name] = f"{entry.name}: {error}"
            if len(entries) > 1:
                say(failures[entry.name])
            continue
        say(f"{entry.name}: {entry.describes} is here and right: {path}")
        if entry.use:
            say(f"  use it: {entry.use.format(path=path, folder=path.parent)}")
    if len(entries) == 1 and failures:
        raise InputError(failures[entries[0].name])
    if failures:
        raise InputError(
            f"{len(failures)} of {len(entries)} were not fetched, see above: {', '.join(failures)}"
        )


def obtain(name: str, *, progress: bool = True, table: Path = TABLE) -> Path:
    """Return where the published weights of a name lie: what is here and right, else fetched and checked.

    A file that was hashed before and has not changed since is not hashed again.

    Args:
        name: an entry of the table.
        progress: show bars or lines on stderr.
        table: the published weights.

    Raises:
        InputError: no such entry, or its file cannot be had or is not what it should be.
        Stopped: the connection broke off; the next call goes on from there.
    """
    entries = published(table)
    entry = entries[words.one_of(name, entries, "name")]
    path = _at_hand(entry, table, progress)
    if path is not None:
        return path
    try:
        return _fetch(entry, table, progress)
    except InputError as error:
        reason = str(error).removesuffix(f", {LOCAL_COPY}")  # that advice is for checkpoints
        raise InputError(
            f"{name}: {reason}; get it with `python -m sd2eval models fetch {name}`, "
            "or name a copy of your own with the extractor's `source=`"
        ) from error


def forget(name: str, say: Say = print) -> None:
    """Forget the digest that was recorded at the first use of a name.

    Raises:
        InputError: none was recorded.
    """
    gone = first_use.forget(name)
    if not gone:
        names = sorted({use.name for use in first_use.recorded()})
        raise InputError(f"no digest was recorded for '{name}'; recorded: {', '.join(names) or 'none'}")
    for use in gone:
        say(f"{name}: forgot SHA-256 {use.sha256} of {use.origin}, recorded on {use.date[:10]}")


def _judge_name(name: str, table: Path, progress: bool, say: Say) -> bool:
    entries = published(table)
    if name not in entries:
        path = Path(name).expanduser()
        if path.is_dir():
            raise InputError(f"{name}: is a folder; give the file to verify")
        if not path.is_file() and (path.suffix or len(path.parts) > 1):
            raise InputError(f"{name}: no such file, and no name of published weights")
        if not path.is_file():
            words.one_of(name, entries, "name")
        return _identify(path, table, progress, say)
    held = holding(entries[name])
    if held.path is None:
        raise InputError(f"{name}: not on this machine; get it with `python -m sd2eval models fetch {name}`")
    return _judge(held, table, progress, say)


def _judge(held: Holding, table: Path, progress: bool, say: Say) -> bool:
    """Say whether what is here of one entry is right; what is missing is not wrong."""
    entry, path = held.entry, held.path
    if path is None:
        say(f"{entry.name}: not on this machine")
        return True
    digest = _hashed(path, entry.name, progress)
    if held.expected is None:
        say(f"{entry.name}: no digest is published and none was recorded yet; SHA-256 {digest} ({path})")
    elif digest != held.expected:
        say(f"{entry.name}: WRONG: {_difference(entry, held.expected, digest, table)} ({path})")
        return False
    elif held.first_use:
        say(f"{entry.name}: as recorded at first use on {held.first_use.date[:10]} ({path})")
    else:
        say(f"{entry.name}: right ({path})")
    return True


def _identify(path: Path, table: Path, progress: bool, say: Say) -> bool:
    """Say what a file is by its digest alone; return whether that is known."""
    digest = _hashed(path, path.name, progress)
    known = by_digest(digest, table)
    if known:
        say(f"{path} is {known.name}: {known.describes}")
        return True
    used = [use for use in first_use.recorded() if use.sha256 == digest]
    for use in used:
        say(f"{path} is what was first used as '{use.name}' from {use.origin} on {use.date[:10]}")
    if not used:
        say(f"{path}: unknown: its SHA-256 {digest} is none of the published ones and was never used here")
    return bool(used)


def _hashed(path: Path, label: str, progress: bool) -> str:
    with Meter(f"hashing {label}", path.stat().st_size, show=progress) as meter:
        digest = file_digest(path, meter.to)
    note_digest(path, digest)
    return digest


def _difference(entry: Published, wanted: str, digest: str, table: Path) -> str:
    """Say in words what a file is instead of what it should be."""
    known = by_digest(digest, table)
    what = f"it is {known.name}: {known.describes}" if known else "it is no file that sd2eval knows"
    return f"SHA-256 {digest} instead of {wanted}; {what}, not {entry.describes}"


def _chosen(names: Sequence[str], table: Path) -> list[Published]:
    entries = published(table)
    if not names:
        raise InputError(f"fetch what? {ALL} (what the model_card study needs) or: {', '.join(entries)}")
    chosen = [entry for entry in entries.values() if ALL in names and entry.study]
    for name in names:
        if name != ALL and entries[words.one_of(name, entries, "name")] not in chosen:
            chosen.append(entries[name])
    return chosen


def _need_space(entries: Sequence[Published]) -> None:
    """Refuse before the first of several downloads what will not fit; single ones are checked exactly."""
    missing = [entry for entry in entries if locate(entry) is None]
    if len(missing) > 1:
        about = sum(entry.about_bytes or 0 for entry in missing)
        download.need_space(hub.cache_root(), about, f"fetching {len(missing)} files")


def _at_hand(entry: Published, table: Path, progress: bool) -> Path | None:
    """Return where an entry's file lies if it is here, whole and right; asks no network."""
    path = locate(entry)
    companions = (hub.in_cache(entry.repository or "", companion) for companion in entry.companions)
    if path is None or not all(companions):
        return None
    digest = noted_digest(path) or _hashed(path, entry.name, progress)
    try:
        _settle(entry, digest, table)
    except InputError:
        return None  # fetching says what is wrong with it
    return path


def _fetch(entry: Published, table: Path, progress: bool) -> Path:
    """Return where an entry's file lies, downloaded if need be, after checking its digest."""
    if entry.url:
        wanted = f"sha256:{entry.sha256}" if entry.sha256 else None
        path = torch_hub_folder() / entry.file
        if constants.is_offline_mode() and not path.is_file():
            raise InputError(
                f"HF_HUB_OFFLINE is set and {path} is not there; go online, or put the file there"
            )
        download.fetch(entry.url, path, digest=wanted, progress=progress, label=entry.name)
        _settle(entry, _hashed(path, entry.name, progress), table)
        return path
    assert entry.repository  # the table has a repository or a url for each
    before = locate(entry)
    path = hub.file(entry.repository, entry.file, progress=progress)
    digest = _hashed(path, entry.name, progress)
    try:
        _settle(entry, digest, table)
    except InputError as error:
        raise InputError(f"{error}; {_dispose(path, digest, came_now=path != before)}") from error
    for companion in entry.companions:
        hub.file(entry.repository, companion, progress=progress)
    return path


def _settle(entry: Published, digest: str, table: Path) -> None:
    """Accept a digest, or raise InputError; where none is published, record it or compare with the record."""
    if entry.sha256 is None:
        first_use.remember(entry.name, digest, entry.origin)
    elif digest != entry.sha256:
        raise InputError(f"{entry.origin}: {_difference(entry, entry.sha256, digest, table)}")


def _dispose(path: Path, digest: str, *, came_now: bool) -> str:
    """Remove a refused file that came just now or is damaged; say what was done."""
    if came_now or hub.promised_digest(path) not in (None, digest):
        hub.discard(path)
        return "it was removed from the cache"
    return f"it was in the cache before and stays there ({path})"
