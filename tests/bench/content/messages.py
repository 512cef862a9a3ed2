"""The largest Celery message: of everything that the bench ran before, of the examples, and of shapes beside."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

from graflow_celery import FeedbackRequest, WorkflowContext
from graflow_celery.cli.loading import load_workflow
from tests.bench.content import flows
from tests.bench.content.stage import Sides
from tests.bench.content.table import Row

LARGEST = 1024
LENGTHS = (20, 64, 100, 250)
EXAMPLES = Path(__file__).parents[3] / "examples"
#: They need more than the workers that are here: another queue, another app.
LEFT_OUT = ("12_priorities_and_queues", "13_existing_app")
DEPTH = 6


def of_all(sides: Sides) -> Row:
    """To be called last. The shapes with long ids are told apart: ids are the user's."""
    _examples(sides)
    mark = secrets.token_hex(4)
    shapes: dict[str, WorkflowContext] = {
        f"groups nested {DEPTH} deep": flows.nested(mark, DEPTH),
        "mapped task": flows.mapped(mark),
    }
    for name, wf in shapes.items():
        with sides.tap(sides.ours, name):
            wf.execute(backend="celery", settings=sides.ours.settings, timeout=120)
    told = sides.largest["ours"]
    largest = max(told.values(), key=lambda message: message.size)
    by_length = ", ".join(f"{length}: {_with_ids(sides, mark, length):,} B" for length in LENGTHS)
    others = [max(sides.largest[side].values(), key=lambda it: it.size, default="") for side in ("raw", "graflow")]
    return Row(
        "largest Celery message of all the above, the examples, nested groups, a mapped task",
        "1 KB",
        f"{largest}. By the length of the ids of tasks and groups: {by_length}",
        largest.size <= LARGEST,
        *map(str, others),
    )


def _with_ids(sides: Sides, mark: str, length: int) -> int:
    with sides.ours.tap(f"ids of {length} characters") as tap:
        flows.long_names(mark, length).execute(backend="celery", settings=sides.ours.settings, timeout=120)
    return max(message.size for message in tap.largest.values())


def _examples(sides: Sides) -> None:
    for path in sorted(EXAMPLES.glob("[0-9]*.py")):
        if path.stem in LEFT_OUT:
            continue
        with tempfile.TemporaryDirectory() as folder, sides.tap(sides.ours, f"example {path.name}"):
            (Path(folder) / "databases").mkdir()
            channel = {"package": "html", "folder": folder}
            wf = load_workflow(str(path))
            wf.execute(
                backend="celery",
                settings=sides.ours.settings,
                timeout=120,
                initial_channel=channel,
                feedback=_first_option,
            )


def _first_option(request: FeedbackRequest) -> str:
    return str((request.options or ("yes",))[0])
