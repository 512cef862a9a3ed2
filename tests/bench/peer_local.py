# mypy: ignore-errors
"""Runs under another Python, where graflow 0.2.0 is installed: its own way of writing what `local` has.

For each line of input, `SHAPE COUNT`, it runs such a workflow once and prints the seconds that it took, without those
of writing it. Nothing of graflow_celery is here.
"""

import functools
import logging
import os
import sys
import time

from graflow.core.decorators import task
from graflow.core.task import ParallelGroup
from graflow.core.workflow import workflow

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the library prints is no answer


def new(name):
    @task(name)
    def noop():
        return 1

    return noop


def group(name, members):
    return ParallelGroup([new(f"{name}_{index}") for index in range(members)], name=name)


@functools.cache
def written(shape, count):
    """The workflow and where it starts."""
    with workflow(shape) as wf:
        if shape == "chain":
            steps = [new(f"n{index}") for index in range(count)]
        elif shape == "group":
            steps = [group("g", count)]
        else:
            steps = [group(f"g{number}", 10) for number in range(count)]
        before = steps[0]
        for step in steps[1:]:
            before >> step
            before = step
    return wf, steps[0].task_id


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        shape, count = line.split()
        wf, start = written(shape, int(count))
        began = time.perf_counter()
        wf.execute(start_node=start, max_steps=100 * int(count))
        print(time.perf_counter() - began, file=answers, flush=True)
