"""Fan-out: one task, several copies side by side, each with parameters of its own. The group's result is a dict.
Run it: graflow-celery run examples/02_fan_out.py --backend embedded"""

import random
from statistics import fmean

from graflow_celery import ParallelGroup, task, workflow

POINTS = 20_000


@task
def hits(seed: int) -> int:
    """How many random points of the unit square lie in the quarter circle."""
    dice = random.Random(seed)
    return sum(dice.random() ** 2 + dice.random() ** 2 < 1 for _ in range(POINTS))


@task
def pi(throws: dict[str, int]) -> float:
    return 4 * fmean(throws.values()) / POINTS


with workflow("fan_out") as wf:
    ParallelGroup([hits(task_id=f"hits-{seed}", seed=seed) for seed in range(6)], name="throws") >> pi
