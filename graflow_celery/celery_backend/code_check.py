"""What a worker does about a function that has other code here than where the workflow was submitted."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import Any, Literal, Protocol

from graflow_celery.errors import CodeMismatchError
from graflow_celery.ports import RunRef

logger = logging.getLogger(__name__)

#: The event by which a run tells of it.
CODE_DIFFERS = "code_differs"
Mode = Literal["warn", "error", "ignore"]
_KEPT = 4096


class Announce(Protocol):
    """Writes an event down for all who watch the run, or only wait for its end."""

    def __call__(self, run: RunRef, event: str, /, **fields: str) -> None: ...


class CodeCheck:
    """Told of each difference when a function is loaded, it tells every run of it once. Usable from many threads.

    Args:
        mode: the setting ``code_mismatch``.
        where: how errors name this process: ``"worker w1:17"``.
    """

    def __init__(self, mode: Mode, where: str, announce: Announce) -> None:
        self.mode = mode
        self._where = where
        self._announce = announce
        self._differing: OrderedDict[str, str] = OrderedDict()
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def found_some(self) -> bool:
        return bool(self._differing)

    def differs(self, blob: str, task_id: str, name: str) -> None:
        """The function ``name`` that a blob refers to has other code here. Raises CodeMismatchError, if wanted."""
        if self.mode == "error":
            raise CodeMismatchError(task_id, _difference(name, self._where))
        if self.mode == "warn" and _is_new(self._differing, blob, name, self._lock):
            logger.warning("task '%s': %s", task_id, _difference(name, self._where))

    def tell(self, run: RunRef, blob: str, node: str, worker: str) -> None:
        """Tells a run of it that uses the function for ``node``, unless this process did so before."""
        name = self._differing.get(blob)
        if name is not None and _is_new(self._told, (run.id, blob), None, self._lock):
            self._announce(run, CODE_DIFFERS, node=node, worker=worker, reason=_difference(name, f"worker {worker}"))


def _is_new(known: OrderedDict[Any, Any], key: object, value: object, lock: threading.Lock) -> bool:
    """Whether ``known``, which keeps the latest, did not have the key. It has it then."""
    with lock:
        if key in known:
            return False
        known[key] = value
        while len(known) > _KEPT:
            known.popitem(last=False)
        return True


def _difference(name: str, where: str) -> str:
    return (
        f"'{name}' has other code on {where} than where the workflow was submitted. Restart that worker if the code "
        "changed after it was started, or install the same version there; ship='value' sends the code itself."
    )
