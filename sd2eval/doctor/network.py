"""Can what is missing be fetched? One quick question to each host that would be asked."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from huggingface_hub import constants

from sd2eval.doctor.findings import OK, PROBLEM, WARNING, Finding, reason
from sd2eval.doctor.weights import OFFLINE, Wanted

SECONDS = 3.0
"""For an answer, of whatever kind."""
SETTINGS = "check the connection, HTTPS_PROXY and HF_ENDPOINT; or copy the files here, docs/models.md"


def hosts(wanted: Wanted) -> Iterator[Finding]:
    """Ask the hub, and whoever else keeps what is missing; nobody where nothing is."""
    addresses = needed(wanted)
    offline = constants.is_offline_mode()
    if not addresses:
        mode = f"; {OFFLINE}" if offline else ""
        yield Finding("hub", OK, f"not needed: nothing has to be fetched{mode}")
        return
    if offline:
        yield Finding("hub", WARNING, f"{OFFLINE}: nothing is asked or fetched", "unset it to fetch weights")
        return
    with ThreadPoolExecutor(len(addresses)) as pool:
        yield from pool.map(_asked, addresses)


def needed(wanted: Wanted) -> list[str]:
    """Return the addresses that would be asked, the hub's first."""
    addresses = [constants.ENDPOINT] if wanted.elsewhere else []
    for entry in wanted.missing:
        parts = urlsplit(entry.url or "")
        addresses.append(f"{parts.scheme}://{parts.netloc}" if entry.url else constants.ENDPOINT)
    return sorted(dict.fromkeys(addresses), key=lambda address: address != constants.ENDPOINT)


def _asked(address: str) -> Finding:
    host = urlsplit(address).netloc or address
    fault = silence(address)
    if not fault:
        return Finding("hub", OK, f"{host} answers", about=host)
    found = f"{host}: {fault}, and weights are missing"
    return Finding("hub", PROBLEM, found, SETTINGS, about=host)


def silence(address: str) -> str:
    """Return why an address does not answer, in words; empty if it does, whatever it says."""
    try:
        request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "sd2eval"})
        with urllib.request.urlopen(request, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"answers {error.code}" if error.code >= 500 or error.code == 407 else ""
    except TimeoutError:
        return f"no answer within {SECONDS:g} s"
    except urllib.error.URLError as error:
        cause = error.reason
        if isinstance(cause, TimeoutError):
            return f"no answer within {SECONDS:g} s"
        return f"cannot be reached ({reason(cause) if isinstance(cause, BaseException) else cause})"
    except (OSError, ValueError) as error:  # a connection that breaks, an address that is none
        return f"cannot be reached ({reason(error)})"
