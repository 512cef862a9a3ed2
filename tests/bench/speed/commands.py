"""Rows of what a no-op member asks of the server, the submit and the end of its run included."""

from __future__ import annotations

import statistics

from tests.bench.speed.figures import Bar
from tests.bench.speed.races import Bench, lacking
from tests.bench.speed.report import Row


def commands(bench: Bench, *, single: bool) -> list[Row]:
    """Commands that the server executed for a member, also those inside of scripts; and how often it was written to."""
    members = bench.sizes.members
    found = bench.fan_out(members, single)
    each = [statistics.median(item.commands for item in side) / members for side in (found.ours, found.theirs)]
    asked = [statistics.median(item.requests for item in side) / members for side in (found.ours, found.theirs)]
    row = Row(
        "commands-single" if single else "commands-batched",
        f"server commands of a no-op member among {members:,}, {'single' if single else 'batched'}",
        "raw Celery",
        each[0],
        Bar(12 if single else 3, "most", ""),
        f"{each[0]:.2f}; {asked[0]:.2f} requests",
        f"{each[1]:.2f}; {asked[1]:.2f} requests",
        note=lacking(bench.stage.single) if single else "",
        unit="",
        units=members,
        ours=found.ours,
        theirs=found.theirs,
    )
    return [row]
