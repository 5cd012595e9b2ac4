"""The contract, kept by actors of Ray; and what only a cluster has: nodes, an address, a shared folder."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import torch

from sd2eval.config import EngineConfig, from_overrides
from sd2eval.engines import ray as ray_engine
from sd2eval.engines import ray_actor, ray_cluster
from sd2eval.engines.base import Assignment
from sd2eval.engines.ray_cluster import Slot
from sd2eval.errors import InputError, Stopped
from sd2eval.interrupt import Interrupt
from sd2eval.mini import DATA
from sd2eval.plan import Block
from sd2eval.progress import Progress
from sd2eval.store import WRITER
from sd2eval.worker import Task
from tests.engines.commands import ROOT, SMALL, Command, Result, result
from tests.engines.contract import Contract

os.environ |= ray_cluster.SILENT  # Ray reads it at its import
pytest.importorskip("ray", reason='Ray is an optional extra: pip install "sd2eval[ray]"')

CONFIG = EngineConfig(name="ray", workers=1, tries=3, address=None, cpus_per_worker=1, gpus_per_worker=None)
STORE = {"object_store_memory": 100_000_000, "num_cpus": 1}


class TestRay(Contract):
    words = ("engine=ray", "engine.workers=2")
    worker = r"^ray::Actor"
    fewest = ("engine.workers=1",)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Of drivers that were killed there is a folder, until the next one comes: nobody does after these."""
    yield
    ray_cluster.remove_abandoned()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # short, for Ray's sockets
        head = STORE | {"include_dashboard": False, "temp_dir": folder}
        made = Cluster(initialize_head=True, head_node_args=head)
        yield made
        made.shutdown()


def test_a_cluster_is_joined_loses_a_node_in_the_middle_and_stays(
    undisturbed: Result, cluster: Any, tmp_path: Path
) -> None:
    node, out = cluster.add_node(**STORE), tmp_path / "run"
    cluster.wait_for_nodes()
    data = shutil.copytree(DATA, tmp_path / "data")
    words = (*SMALL, f"data.root={data}", "engine=ray", f"engine.address={cluster.address}")
    with Command(out, words, r"^ray::Actor") as command:
        command.until(
            lambda: len(list(out.glob("sessions/*.json"))) == 3 or command.process.poll() is not None
        )
        cluster.remove_node(node, allow_graceful=False)
        assert command.ends() == 0, command.log
        log = command.log
    assert "was lost" in log
    assert result(out) == undisturbed
    host, _, port = cluster.address.rpartition(":")
    socket.create_connection((host, int(port)), 5).close()


def test_a_cluster_of_its_own_is_quiet_and_leaves_nothing() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    folders = set(Path("/tmp").glob("sd2eval-ray-*"))
    with ray_cluster.connected(dataclasses.replace(CONFIG, workers=3)) as ray:
        children = psutil.Process().children()
        assert any("gcs_server" in " ".join(child.cmdline()) for child in children)
        assert {child.environ()["RAY_USAGE_STATS_ENABLED"] for child in children} == {"0"}
        assert {number: signal.getsignal(number) for number in before} == before
        one = ray_cluster.slot(ray, CONFIG, "cpu")
        assert (one, ray_cluster.room(ray, one)) == (Slot(1, 0), 3)
        too_much = dataclasses.replace(CONFIG, cpus_per_worker=4)
        with pytest.raises(InputError, match=r"no node of the cluster has 4 CPU for a worker"):
            ray_engine._count(ray, too_much, Slot(4, 0), Progress(0, quiet=True))
        if "GPU" not in ray.cluster_resources():
            with pytest.raises(InputError, match=r"device=cuda: no node of the Ray cluster has a GPU"):
                ray_cluster.slot(ray, CONFIG, "cuda")
    assert not ray.is_initialized()
    assert {number: signal.getsignal(number) for number in before} == before
    assert set(Path("/tmp").glob("sd2eval-ray-*")) <= folders


def test_the_folder_of_a_cluster_stays_while_its_driver_lives() -> None:
    code = "import os, sys; from sd2eval.engines.ray_cluster import _folder\nwith _folder() as folder:\n"
    code += "    print(folder, flush=True); sys.stdin.read(); os._exit(9)"
    driver = [sys.executable, "-c", code]
    with subprocess.Popen(driver, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        folder = Path(process.stdout.readline().decode().strip())
        ray_cluster.remove_abandoned()
        assert folder.is_dir()
        process.communicate()
    assert folder.is_dir()
    ray_cluster.remove_abandoned()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("resources", "one", "workers"),
    [
        ({"CPU": 8.0, "GPU": 2.0}, Slot(1, 1), 2),
        ({"CPU": 1.0, "GPU": 2.0}, Slot(1, 1), 1),
        ({"CPU": 64.0, "GPU": 8.0}, Slot(4, 2), 4),
        ({"CPU": 3.0}, Slot(2, 0), 1),
        ({"CPU": 3.0}, Slot(1, 1), 0),
        ({}, Slot(1, 0), 0),
    ],
)
def test_a_node_has_room_for_whole_workers(resources: dict[str, float], one: Slot, workers: int) -> None:
    assert ray_cluster._fits(resources, one) == workers


@pytest.mark.parametrize("through", ["config", "RAY_ADDRESS"])
def test_an_address_where_nobody_listens_is_one_line_at_once(
    through: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound, so that nobody else gets it; not listening
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        if through == "RAY_ADDRESS":
            monkeypatch.setenv("RAY_ADDRESS", nobody)
        address = nobody if through == "config" else "auto"
        with (
            pytest.raises(InputError, match=rf"engine\.address={nobody}: no Ray cluster answers there"),
            ray_cluster.connected(dataclasses.replace(CONFIG, address=address)),
        ):
            raise AssertionError("connected to nobody")


def test_an_address_that_is_none_is_refused() -> None:
    with (
        pytest.raises(InputError, match=r"allowed: null, auto, HOST:PORT or ray://HOST:PORT"),
        ray_cluster.connected(dataclasses.replace(CONFIG, address="head-node")),
    ):
        raise AssertionError("connected to nobody")


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "sd2eval\[ray\]"'), ray_cluster.connected(CONFIG):
        raise AssertionError("imported")


@pytest.mark.parametrize("there", ["nothing", "the folder of another run"])
def test_a_node_that_does_not_see_the_run_folder_is_named(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_actor, "SIGHT_SECONDS", 0)
    config, definitions = from_overrides(*SMALL)
    if there != "nothing":
        (tmp_path / WRITER).write_text("another")
    path = tmp_path if there != "nothing" else tmp_path / "elsewhere"
    told = Assignment(
        config=config,
        definitions={definition.name: definition for definition in definitions},
        weights={},
        dataset=None,  # type: ignore[arg-type]
        path=path,
        device=torch.device("cpu"),
        dtype="float32",
        digests={},
        token="ours",
    )
    answer = ray_actor.Actor().enlist(told, "cpu", 1, 1.0)
    assert answer.kind == "refused"
    assert answer.text.startswith(f"node {socket.gethostname()}: the run folder {path} is not the driver's")
    assert "put out= on a file system that all nodes share" in answer.text


def test_a_shard_that_never_comes_into_sight_stops_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "LISTING_SECONDS", 0)
    task = Task("512-base", Block(0, 3), (3.0,))
    with pytest.raises(Stopped, match=r"node7 has published 512-base/000000-000003, but"):
        ray_engine.await_shard(tmp_path, task, "node7", Interrupt())
    (tmp_path / "shards" / "512-base" / task.block.key).mkdir(parents=True)
    ray_engine.await_shard(tmp_path, task, "node7", Interrupt())


def test_actors_share_the_energy_of_their_machine() -> None:
    fields = {"ray": None, "told": None, "assignment": None, "slot": Slot(1, 0), "count": 3}
    engine = ray_engine.Actors(**fields, attempts=None, progress=None, interrupt=None)  # type: ignore[arg-type]
    engine._hands += [ray_engine._Hand(n, None, host=host) for n, host in enumerate(["a", "a", "b", ""])]
    assert [engine._share(hand) for hand in engine._hands[:3]] == [0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    "word",
    [
        "engine.cpus_per_worker=0",
        "engine.cpus_per_worker=1.5",
        "engine.gpus_per_worker=-1",
        "engine.workers=0",
    ],
)
def test_what_no_worker_can_take_is_refused(word: str) -> None:
    with pytest.raises(InputError, match=word.replace(".", r"\.")):
        from_overrides("engine=ray", word)


def test_as_many_as_fit_is_for_a_cluster() -> None:
    assert from_overrides("engine=ray")[0].engine.workers is None
    with pytest.raises(InputError, match=r"engine\.workers=null"):
        from_overrides("engine.workers=null")
