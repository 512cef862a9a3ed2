"""The largest Celery message: of everything that the bench ran before, of the examples, and of shapes beside."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from graflow_celery import FeedbackRequest, WorkflowContext
from graflow_celery.cli.loading import load_workflow
from tests.bench.content import flows
from tests.bench.content.stage import Sides
from tests.bench.content.table import Row
from tests.large_messages import LARGEST

DEPTHS = (1, 2, 3, 6)
LENGTHS = (20, 64, 100, 250)
TIMEOUT = 120
EXAMPLES = Path(__file__).parents[3] / "examples"
#: They need more than the workers that are here: another queue, another app.
LEFT_OUT = ("12_priorities_and_queues", "13_existing_app")


def of_all(sides: Sides) -> list[Row]:
    """To be called last."""
    mark = secrets.token_hex(4)
    _examples(sides)
    _largest(sides, "a mapped task", flows.mapped(mark))
    told = sorted(sides.largest["ours"].values(), key=lambda message: -message.size)
    others = [max(sides.largest[side].values(), key=lambda it: it.size, default="") for side in ("raw", "graflow")]
    whole = Row(
        "largest Celery message of all the above, the examples, a mapped task",
        "1 KB",
        "; ".join(map(str, told)),
        told[0].size <= LARGEST,
        *map(str, others),
    )
    nested = _series(sides, DEPTHS, lambda depth: flows.nested(mark, depth))
    named = _series(sides, LENGTHS, lambda length: flows.long_names(mark, length))
    return [
        whole,
        _shaped("of groups nested 1, 2, 3, 6 deep", "1 KB", nested, max(nested)),
        _shaped(
            "of a group where it and its members have ids of 20, 64, 100, 250 characters",
            "1 KB up to 100 characters; ids are the user's",
            named,
            max(named[:-1]),
        ),
    ]


def _shaped(what: str, bar: str, sizes: list[int], judged: int) -> Row:
    ours = " / ".join(f"{size:,} B" for size in sizes)
    return Row(f"largest Celery message {what}", bar, ours, judged <= LARGEST)


def _series(sides: Sides, numbers: tuple[int, ...], made: Callable[[int], WorkflowContext]) -> list[int]:
    return [_largest(sides, f"shape {number}", made(number), remembered=False) for number in numbers]


def _largest(sides: Sides, name: str, wf: WorkflowContext, *, remembered: bool = True) -> int:
    with sides.tap(sides.ours, name) if remembered else sides.ours.tap(name) as tap:
        wf.execute(backend="celery", settings=sides.ours.settings, timeout=TIMEOUT)
    return max(message.size for message in tap.largest.values())


def _examples(sides: Sides) -> None:
    for path in sorted(EXAMPLES.glob("[0-9]*.py")):
        if path.stem in LEFT_OUT:
            continue
        with tempfile.TemporaryDirectory() as folder, sides.tap(sides.ours, f"example {path.name}"):
            (Path(folder) / "databases").mkdir()
            channel = {"package": "html", "folder": folder}
            load_workflow(str(path)).execute(
                backend="celery",
                settings=sides.ours.settings,
                timeout=TIMEOUT,
                initial_channel=channel,
                feedback=_first_option,
            )


def _first_option(request: FeedbackRequest) -> str:
    return str((request.options or ("yes",))[0])
