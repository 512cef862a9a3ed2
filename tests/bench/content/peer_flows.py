# mypy: ignore-errors
"""Runs under another Python, where graflow 0.2.0 is installed: its own way of writing what `flows` has.

`python peer_flows.py WORK PORT PREFIX NUMBER`; prints the seconds that it took, and how many groups or members
were served. Nothing of graflow_celery is here.
"""

import random
import sys
import time

import redis
from graflow.coordination.graph_store import GraphStore
from graflow.core.context import ExecutionContext
from graflow.core.decorators import task
from graflow.core.engine import WorkflowEngine
from graflow.core.task import ParallelGroup
from graflow.core.workflow import workflow

SIZE = 10_000_000


def text():
    lines = random.Random(1).choices([f"line {number} of a log that says little\n" for number in range(500)], k=300_000)
    return "".join(lines)[:SIZE]


@task
def noop():
    return 1


@task
def produce():
    return text()


@task(inject_context=True)
def read(context):
    """Whether it got the value: with 0.2.0 it gets None, as the workers' client gives bytes to a channel of texts."""
    return context.get_result("produce") is not None


def groups(config, count, members=2):
    """Groups in a row on one graph."""
    with workflow("groups") as wf:
        before = None
        for number in range(count):
            group = ParallelGroup([noop(task_id=f"g{number}m{index}") for index in range(members)], name=f"g{number}")
            group.with_execution(backend="redis", backend_config=config)
            before = group if before is None else before >> group
        wf.execute(start_node="g0", max_steps=10 * count)
    return count


def sharing(config, members):
    """A value that one task makes and others read: in the Redis channel, as the workers see no other."""
    with workflow("sharing") as wf:
        group = ParallelGroup([read(task_id=f"r{index}") for index in range(members)], name="readers")
        group.with_execution(backend="redis", backend_config=config)
        produce >> group
    there = {name: config[name] for name in ("host", "port", "db")}
    context = ExecutionContext.create(wf.graph, "produce", channel_backend="redis", config=there)
    WorkflowEngine().execute(context)
    return sum(context.get_result(f"r{index}") for index in range(members))


def changed(config, count):
    """A graph of so many small functions is saved, and again with one of them changed: what a group in it would do."""
    client = redis.Redis(host=config["host"], port=config["port"], db=config["db"])
    for more in (0, 7):
        with workflow("changed") as wf:
            for number in range(count):
                task(small(number + (more if number == count // 2 else 0)), id=f"t{number}")
        GraphStore(client, config["key_prefix"]).save(wf.graph)
    return count


def small(number):
    return lambda: f"value {number}"


if __name__ == "__main__":
    work, port, prefix, number = sys.argv[1:]
    config = {"host": "127.0.0.1", "port": int(port), "db": 0, "key_prefix": prefix}
    began = time.perf_counter()
    done = {"groups": groups, "sharing": sharing, "changed": changed}[work](config, int(number))
    print(time.perf_counter() - began, done)
