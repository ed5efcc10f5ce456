"""A Ray cluster of several nodes on this machine: `python ray_cluster.py CPUS`, then JSON lines.

Each line on stdin is one command, a list of its name and arguments, and is answered by a line on
stdout. The cluster ends with stdin.
"""

import json
import os
import sys

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.scripts import cli

STORE_BYTES = 100_000_000


class Commands:
    """What a test can do to the cluster."""

    def __init__(self, cpus):
        self._cluster = Cluster()
        self._nodes = {}
        self.node("head", cpus)
        ray.init(self._cluster.address, log_to_driver=False, logging_level="error")

    def node(self, name, cpus):
        self._nodes[name] = self._cluster.add_node(
            num_cpus=cpus, object_store_memory=STORE_BYTES, include_dashboard=False
        )

    def kill_node(self, name):
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def deploy(self, path):
        """What `serve run` does with a file, without the start of another process."""
        words = ["run", "--non-blocking", "--address", self._cluster.address, path]
        cli(words, standalone_mode=False)

    def status(self):
        """Status and message of each application; of its servers, how many are in which state."""
        return {
            name: {
                "status": str(each.status.value),
                "message": each.message,
                "servers": {
                    str(getattr(state, "value", state)): count
                    for state, count in each.deployments["Server"].replica_states.items()
                }
                if "Server" in each.deployments
                else {},
            }
            for name, each in serve.status().applications.items()
        }

    def close(self):
        serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()


def main():
    # What Ray and its processes write to stdout is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    commands = Commands(int(sys.argv[1]))
    print(json.dumps("ready"), file=answers, flush=True)
    try:
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(getattr(commands, name)(*arguments)), file=answers, flush=True)
    finally:
        commands.close()


if __name__ == "__main__":
    main()
