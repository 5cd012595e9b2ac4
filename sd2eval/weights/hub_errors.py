"""What can go wrong between here and the hub, each in one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from urllib.parse import urlsplit

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sd2eval.errors import InputError, Stopped
from sd2eval.transfer.download import PASSING
from sd2eval.weights.published import mirror

# Of httpx or httpx2, whichever this huggingface_hub is built on: the base of every failed request.
TransportError = cast(type[Exception], HfHubHTTPError.__bases__[0])
LOCAL_COPY = "or give the sweep a copy of your own: checkpoint.source=FILE"


@contextmanager
def one_line(repository: str, what: str, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub raises into an InputError, or Stopped where another try may help.

    Args:
        repository: hub id that was asked for.
        what: the file or files of it.
        revision: branch, tag or commit that was asked for.
    """
    if not constants.is_offline_mode() and urlsplit(constants.ENDPOINT).scheme not in ("http", "https"):
        raise InputError(f"HF_ENDPOINT={constants.ENDPOINT}: http:// or https:// is missing at its beginning")
    try:
        yield
    except HFValidationError:
        raise InputError(f"'{repository}' is neither on this machine nor a hub id (owner/name)") from None
    except (EntryNotFoundError, TransportError) as error:
        raise _explained(error, repository, what, revision) from error
    except OSError as error:
        raise InputError(
            f"{repository}: the cache {constants.HF_HUB_CACHE} cannot be used ({error}); HF_HOME moves it"
        ) from error


def passes(error: Exception) -> bool:
    """Tell whether a failed request may succeed in a moment."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in PASSING or error.response.status_code >= 500
    return True


def _explained(error: Exception, repository: str, what: str, revision: str | None) -> Exception:
    hub = constants.ENDPOINT
    if isinstance(error, GatedRepoError):
        return InputError(
            f"{repository} is open only to those who accepted its terms: do that at {hub}/{repository}, "
            "then log in with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError):
        return InputError(_gone(repository))
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{repository} on {hub} has no revision '{revision}'")
    if isinstance(error, LocalEntryNotFoundError):
        return InputError(_not_cached(repository, what, revision))
    if isinstance(error, EntryNotFoundError):
        at = f" at revision '{revision}'" if revision else ""
        return InputError(f"{repository} on {hub} has no {what}{at}")
    if isinstance(error, HfHubHTTPError):
        return _answered(error, repository)
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        f"{repository}: {hub} cannot be reached ({reason}); "
        f"check the network, proxies and HF_ENDPOINT, {LOCAL_COPY}"
    )


def _gone(repository: str) -> str:
    hub, now = constants.ENDPOINT, mirror(repository)
    if now:
        return f"{repository} is no longer on {hub}; its mirror is {now}: checkpoint.source={now}"
    return (
        f"{repository} is not on {hub}, or it is private: check the name, "
        f"log in with `hf auth login` or set HF_TOKEN, {LOCAL_COPY}"
    )


def _not_cached(repository: str, what: str, revision: str | None) -> str:
    at = f" at revision '{revision}'" if revision else ""
    why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{constants.ENDPOINT} was not asked"
    return (
        f"{why} and the cache {constants.HF_HUB_CACHE} does not have {what} of {repository}{at}; "
        f"go online, set HF_HOME to the cache that has it, {LOCAL_COPY}"
    )


def _answered(error: HfHubHTTPError, repository: str) -> Exception:
    code = error.response.status_code
    answer = f"{repository}: {constants.ENDPOINT} answers {code}"
    if passes(error):
        return Stopped(f"{answer} for now")
    if code in (401, 403):
        return InputError(
            f"{answer}: the token (`hf auth login` or HF_TOKEN) is wrong or not allowed to read it"
        )
    return InputError(f"{answer} ({' '.join(str(error).split())[:200]})")
