"""A Ray cluster: joined, or started on this machine for this run only, and how many workers fit into it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sd2eval.config import EngineConfig
from sd2eval.errors import InputError

CONNECT_SECONDS = 5.0
"""Ray itself needs minutes to find that nobody listens, and then ends the process."""
PLACE, PREFIX, LOCK = "/tmp", "sd2eval-ray-", "driver"
"""Of our cluster's folder; a short path, because Ray puts sockets into it."""
STORE_BYTES = 200_000_000
"""Of the object store of a cluster of our own: captions and settings are all that lies in it."""
PASSED_ON = ("SD2EVAL_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
"""Variables of the driver that say where weights are; a node's own environment is that of its `ray start`."""
SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning at each actor without a GPU
}


class Slot(NamedTuple):
    """What one worker takes of a node."""

    cpus: int
    gpus: int

    def __str__(self) -> str:
        return f"{self.cpus} CPU" + (f" and {self.gpus} GPU" if self.gpus else "")


@contextmanager
def connected(config: EngineConfig) -> Iterator[ModuleType]:
    """Join the cluster at `engine.address`, or start one, and yield Ray; leave or end it afterwards.

    A connection that the caller has made already is used, and stays.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    ray = _imported()
    if ray.is_initialized():
        yield ray
        return
    with _folder() if config.address is None else contextlib.nullcontext() as folder:
        try:
            with _own_signal_handlers():
                _start(ray, config, folder) if folder else _join(ray, config.address)
            yield ray
        finally:
            with _own_signal_handlers():
                ray.shutdown()


@contextmanager
def _folder() -> Iterator[str]:
    """Yield a folder for a cluster of our own: Ray never removes what it leaves in its usual one."""
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=PLACE))
    try:
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # held as long as this process lives, however it ends
            folder = folder.rename(folder.with_name(folder.name[1:]))  # locked before it is seen
            yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove the folders of clusters whose driver was killed."""
    for folder in Path(PLACE).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), Path(folder, LOCK).open("r+") as lock:  # OSError: not ours, or new
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def require(config: EngineConfig) -> None:
    """Refuse what cannot work, before anything begins: no Ray, or an address where nobody listens.

    Raises:
        InputError: says what is missing and what to do.
    """
    _imported()
    if config.address is not None:
        _reach(_found(config.address))


def running(address: str) -> str | None:
    """Return where the cluster is that an `engine.address` finds, or None where `auto` finds none."""
    found = _found(address)
    if found != "auto":
        return found
    _imported()
    with contextlib.suppress(ImportError, AttributeError, TypeError):  # it is no promise of Ray's
        from ray._private.services import get_ray_address_from_environment

        try:
            return str(get_ray_address_from_environment("auto", None))
        except ConnectionError:
            return None
    return "auto"


def slot(ray: ModuleType, config: EngineConfig, device: str) -> Slot:
    """Return what a worker takes; a GPU each where the cluster has any and `device` does not say otherwise.

    Raises:
        InputError: `device` asks for GPUs and the cluster has none.
    """
    there = ray.cluster_resources().get("GPU", 0)
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = 1 if device.startswith("cuda") or (device == "auto" and there) else 0
    if gpus and not there:
        raise InputError(f"device={device}: no node of the Ray cluster has a GPU")
    return Slot(config.cpus_per_worker, gpus)


def room(ray: ModuleType, one: Slot) -> int:
    """Return how many workers fit into the nodes that are alive, whoever uses these now."""
    return sum(_fits(node["Resources"], one) for node in ray.nodes() if node["Alive"])


def passed_on() -> dict[str, str]:
    """Return the variables that workers get from their driver."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def _fits(resources: dict[str, float], one: Slot) -> int:
    wanted = (("CPU", one.cpus), ("GPU", one.gpus))
    return min(int(resources.get(name, 0)) // each for name, each in wanted if each)


def _imported() -> ModuleType:
    os.environ.update(SILENT)  # read by Ray when it is imported, and by the processes that it starts
    try:
        import ray
    except ImportError as error:
        raise InputError(f'engine=ray needs Ray: pip install "sd2eval[ray]" ({error})') from error
    return ray  # type: ignore[no-any-return]


def _start(ray: ModuleType, config: EngineConfig, folder: str) -> None:
    # Slots for what is asked for: who wants 4 workers on 2 cores gets them, as from engine=local.
    cpus = None if config.workers is None else config.workers * config.cpus_per_worker
    ray.init(
        address="local",  # None would join what RAY_ADDRESS names
        num_cpus=cpus,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        _temp_dir=folder,
    )


def _join(ray: ModuleType, address: str | None) -> None:
    assert address is not None
    _reach(_found(address))
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ImportError) as error:  # other versions, no client
        line = " ".join(str(error).split())[:300]
        raise InputError(f"engine.address={address}: {line}") from error


def _found(address: str) -> str:
    return os.environ.get("RAY_ADDRESS") or address if address == "auto" else address


def _reach(address: str) -> None:
    """Refuse an address at which nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise InputError(f"engine.address={address}: allowed: null, auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"engine.address={address}: no Ray cluster answers there ({error})") from error


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep our handlers: Ray's ends the process on SIGTERM with the code 15."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
