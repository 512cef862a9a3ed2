"""`python -m tests.bench.content.client FLOW ...`: a fresh process that submits a workflow and prints what that took.

The settings come from the environment. Prints JSON: for each submit, round trips by what they were for.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from graflow_celery import WorkflowContext
from graflow_celery.settings import load_settings
from tests.bench.content import flows
from tests.bench.content.trips import counted

FLOWS = ("groups", "fan-out", "by-value", "by-reference")


def built(flow: str, mark: str, count: int, changed: int, folder: Path | None) -> WorkflowContext:
    """``groups`` has ten members in each of ``count`` / 10 groups; the others have ``count`` in one."""
    if flow == "by-value":
        return flows.by_value(mark, count, changed)
    if flow == "by-reference":
        assert folder is not None
        return flows.by_reference(mark, folder, count, changed)
    members = count if flow == "fan-out" else 10
    return flows.groups(mark, count // members, members)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.content.client", description=__doc__)
    parser.add_argument("flow", choices=FLOWS)
    parser.add_argument("mark")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--changed", type=int, default=0, help="what the middle task's value is changed by")
    parser.add_argument("--folder", type=Path, help="where the module of by-reference is written")
    parser.add_argument("--submits", type=int, default=1)
    chosen = parser.parse_args()
    logging.getLogger("graflow_celery").setLevel(logging.ERROR)  # Nobody consumes the queue, by intention.
    wf = built(chosen.flow, chosen.mark, chosen.count, chosen.changed, chosen.folder)
    found = []
    for _ in range(chosen.submits):
        with counted(load_settings().key_prefix) as trips:
            run = wf.submit()
        found.append({"hash": run.graph_hash, "trips": dict(trips)})
        run.cancel("it was only submitted")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
