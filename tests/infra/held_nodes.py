"""A Ray cluster of several nodes on this machine, by Ray's own means for tests, in a process of its own.

    python -m tests.infra.held_nodes NODES CPUS

prints the address of its dashboard, kills the node of each id that it reads, and ends with its input.
"""

from __future__ import annotations

import os
import sys

from ray.cluster_utils import Cluster

from infra.stack import LOOPBACK, free_port


def main() -> None:
    """Hold the cluster."""
    count, cpus = (int(word) for word in sys.argv[1:])
    dashboard = {"include_dashboard": True, "dashboard_host": LOOPBACK, "dashboard_port": free_port()}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, **dashboard})
    # Folders of their own, as on machines of their own: nodes that share one unpack a job's files anew there,
    # under the feet of those that run in them.
    folders = [f"{os.environ['RAY_TMPDIR']}/{number}" for number in range(1, count)]
    nodes = [cluster.add_node(num_cpus=cpus, temp_dir=folder) for folder in folders]
    others = {node.node_id: node for node in nodes}
    cluster.wait_for_nodes()
    print(f"http://{cluster.head_node.webui_url}", flush=True)
    for line in sys.stdin:
        cluster.remove_node(others.pop(line.strip()), allow_graceful=False)
        print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
