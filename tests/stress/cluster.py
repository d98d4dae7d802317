"""Two Ray nodes with the tiny model, one killed while it works: complete, each item once?"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from contextlib import chdir
from functools import partial
from pathlib import Path

import ray
from helpers.batches import ids, run_batch
from helpers.media_files import write_video
from ray.cluster_utils import Cluster

from malmm_cli.batch import cluster as ray_cluster
from malmm_cli.batch.paths import OutputPaths
from malmm_cli.batch.plan import plan
from malmm_cli.batch.worker import Setup, start
from malmm_cli.models.instructblip.defaults import ASK, CAPTION
from malmm_cli.settings import changed
from malmm_cli.types import Task
from stress import environment


def run(number: int) -> None:
    """Caption so many videos on two nodes."""
    os.environ.update(environment())
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    ray.init(address=cluster.address, log_to_driver=False)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    with tempfile.TemporaryDirectory() as place, chdir(place):
        names = [str(write_video(Path(f"v{index}.mp4"), 20)) for index in range(number)]
        settings = changed(CAPTION, frames=4, memory=2, beams=1, max_new_tokens=2)
        items = plan([Task(name, name) for name in names], settings, ASK, {})
        output = OutputPaths(Path("out.jsonl"))

        def kill() -> None:
            while not (output.results.exists() and len(ids(output.results)) > number // 4):
                time.sleep(0.02)
            cluster.remove_node(nodes[0], allow_graceful=False)
            print(f"a node is killed after {len(ids(output.results))} items")

        killer = threading.Thread(target=kill)
        killer.start()
        engine = partial(ray_cluster.run, start=partial(start, Setup("tiny")), workers=2)
        tally = run_batch(output, items, engine=engine)
        killer.join()
        assert (tally.done, tally.failed) == (number, 0), tally
        assert sorted(ids(output.results)) == sorted(names)
    ray.shutdown()
    cluster.shutdown()
    print(f"{number} videos on two nodes, one killed: complete, each exactly once")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=200)
    run(parser.parse_args().videos)
