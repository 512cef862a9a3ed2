"""Every error survives pickle and Celery's JSON result format, equal to itself, and names what it is about."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from graflow_celery import errors
from graflow_celery.errors import GraflowError

SAMPLES: list[GraflowError] = [
    errors.GraflowError("text"),
    errors.ConfigError("Setting queue: empty"),
    errors.GraphCompilationError("text"),
    errors.DuplicateTaskError("clean"),
    errors.UnknownNodeError("x", ("a", "b")),
    errors.EmptyGroupError("g"),
    errors.WorkflowFileError("text"),
    errors.RunNotFoundError("abc"),
    errors.RunLostError("abc"),
    errors.RunExistsError("nightly", "etl", "report"),
    errors.RetryRefusedError("abc", "it goes on"),
    errors.FeedbackNotFoundError("abc-1"),
    errors.FeedbackAnswerError("abc-1", "it was answered already"),
    errors.CheckpointError("run.ckpt", "it is damaged."),
    errors.UnavailableError("text"),
    errors.StoreUnavailableError("redis://h", "refused"),
    errors.StoreRefusedError("redis://h", "OOM command not allowed", "64.00M"),
    errors.ServerMissingError("No server."),
    errors.ExtraMissingError("litellm", "llm"),
    errors.NoWorkerError(["gpu", "celery"]),
    errors.CompatibilityError("graflow.prompts", "no prompt managers"),
    errors.GraflowRuntimeError("text"),
    errors.TaskError("clean", "text"),
    errors.ParameterError("clean", "text"),
    errors.LLMNotRegisteredError("agent", "writer", ("reader",)),
    errors.SerializationError("result of task 'clean'", "text"),
    errors.CodeNotFoundError("clean", "text"),
    errors.CodeMismatchError("clean", "text"),
    errors.CycleLimitExceededError("clean", 10, 10),
    errors.RetryLimitExceededError("clean", 3, 2, "ValueError: no"),
    errors.FeedbackTimeoutError("clean", "r-1", 5.0),
    errors.AsyncGeneratorError("clean"),
    errors.TaskCancelledError("clean", "text"),
    errors.TimeLimitError("clean", "text"),
    errors.WorkerLostError("clean", "text"),
    errors.BlobMissingError("00ff", "graph"),
    errors.BlobRejectedError("text"),
    errors.RemoteError("mod.Error", "text"),
    errors.ChannelLockTimeoutError("total", 0.5),
    errors.ChannelLockLostError("total"),
    errors.ParallelGroupError("1 of 2 failed", "g", [("a", "ValueError: no"), ("b", None)], ["c"]),
    errors.RunFailedError("abc", "text"),
    errors.RunTimeoutError("abc", 1.5, "clean"),
    errors.RunStateError("text"),
    errors.GraflowWorkflowCanceledError("enough", "clean"),
]


def tree(root: type[GraflowError]) -> Iterator[type[GraflowError]]:
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ == "graflow_celery.errors":
            yield from tree(kind)


def test_every_class_of_the_tree_has_a_sample() -> None:
    assert {type(sample) for sample in SAMPLES} == set(tree(GraflowError))


def test_the_docstring_shows_the_whole_tree_with_its_exit_codes() -> None:
    text = errors.__doc__ or ""
    for kind in tree(GraflowError):
        assert kind.__name__ in text
    assert {kind.exit_code for kind in tree(GraflowError)} == {1, 2, 3}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_equal_after_pickle(sample: GraflowError) -> None:
    copy = pickle.loads(pickle.dumps(sample))
    assert copy == sample
    assert str(copy) == str(sample)
    assert vars(copy) == vars(sample)
    assert hash(copy) == hash(sample)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_equal_after_celerys_json(sample: GraflowError) -> None:
    backend: Any = Celery(broker="memory://", backend="cache+memory://", set_as_current=False).backend
    stored = backend.decode(backend.encode(backend.prepare_exception(sample, "json")))
    copy = backend.exception_to_python(stored)
    assert type(copy) is type(sample)
    assert str(copy) == str(sample)
    assert copy == sample


def test_a_groups_error_lists_every_failed_member() -> None:
    assert str(SAMPLES[-5]) == "Parallel group 'g': 1 of 2 failed\n  a: ValueError: no\n  b: failed"


def test_two_errors_are_equal_by_type_and_arguments() -> None:
    assert errors.TaskError("a", "b") == errors.TaskError("a", "b")
    assert errors.TaskError("a", "b") != errors.TaskError("a", "c")
    assert errors.TaskError("a", "b") != errors.ParameterError("a", "b")
