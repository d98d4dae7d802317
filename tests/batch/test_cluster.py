"""Batches on a real Ray cluster of several nodes, all on this machine."""

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from helpers.batches import broken, files, ids, planned, run_batch, start

from malmm_cli.batch import cluster as ray_cluster
from malmm_cli.errors import MediaError, UsageError

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(scope="module")
def cluster():
    """A head that does no work, to which nodes of one worker each are added."""
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def nodes(cluster):
    """Two nodes."""
    made = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    yield made
    for node in made:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


def engine(slow=0.0, log=None, **how):
    return partial(ray_cluster.run, start=partial(start, slow, log), workers=2, **how)


def test_two_nodes_one_killed(cluster, nodes, paths):
    """Its long form is tests/stress/cluster.py."""
    names = files(*(f"v{number}.mp4" for number in range(30)))
    log = Path("log").absolute()
    log.touch()

    def kill():
        while len(log.read_text().split()) < 8:
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    tally = run_batch(paths, planned(names), engine=engine(0.1, str(log)))
    killer.join()
    assert (tally.done, tally.failed) == (30, 0)
    assert sorted(ids(paths.results)) == sorted(names), "complete, each once"
    assert len(log.read_text().split()) <= 30 + 1, "only what was in flight is done again"
    assert not Path(ids(paths.results)[0]).is_absolute(), "videos are called as they were given"


def test_a_video_that_kills_workers_is_recorded(nodes, paths):
    names = files("a.mp4", "kill-1.mp4", "b.mp4", "fail-1.mp4")
    tally = run_batch(paths, planned(names), engine=engine())
    assert (tally.done, tally.failed) == (2, 2)
    assert {name: error.kind for name, error in tally.errors.items()} == {
        "kill-1.mp4": "Crashed",
        "fail-1.mp4": "NotAVideo",
    }


def test_a_hang_is_ended(nodes, paths, monkeypatch):
    monkeypatch.setattr(ray_cluster, "GRACE", 0.2)
    names = files("hang-1.mp4", "a.mp4", "b.mp4")
    tally = run_batch(paths, planned(names), engine=engine(timeout=1.0))
    assert {name: error.kind for name, error in tally.errors.items()} == {"hang-1.mp4": "Timeout"}
    assert tally.done == 2


def test_a_worker_that_cannot_start_ends_the_run(nodes, paths):
    with pytest.raises(MediaError, match="no worker today"):
        run_batch(paths, planned(files("a.mp4")), engine=partial(ray_cluster.run, start=broken))


def test_nothing_to_do_needs_no_cluster(paths):
    assert list(ray_cluster.run(lambda: None, broken, address="nowhere:1")) == []


def test_without_ray(malmm, paths, monkeypatch):
    files("a.mp4")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError) as caught:
        run_batch(paths, planned(["a.mp4"]), engine=engine())
    assert caught.value.hint == "pip install 'malmm[ray]'"


def test_without_a_cluster(paths, monkeypatch):
    def refuse(**_):
        raise ConnectionError("Could not find any running Ray instance. And more.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(UsageError, match="--ray auto: no cluster found: Could not find any"):
        run_batch(paths, planned(files("a.mp4")), engine=engine())


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://[::1]:9"])
def test_an_address_where_nobody_listens_is_told_at_once(paths, monkeypatch, address):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray would try for minutes"))
    with pytest.raises(UsageError, match=r"no cluster found: .*(refused|address)"):
        run_batch(paths, planned(files("a.mp4")), engine=engine(address=address))
