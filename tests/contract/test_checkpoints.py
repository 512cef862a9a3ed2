"""A run that was left goes on from its checkpoint: taken in threads or on workers, resumed in threads or on workers."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from graflow_celery import (
    CheckpointError,
    CheckpointManager,
    ConfigError,
    ParallelGroup,
    Run,
    Settings,
    TaskExecutionContext,
    WorkflowContext,
    WorkflowEngine,
    task,
    workflow,
)
from graflow_celery.engine.checkpoint import MAGIC
from graflow_celery.testing import wait_until
from tests.contract.conftest import Execute

Resume = Callable[..., Any]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Checkpoints that are given no path go below the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "run.ckpt"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the tasks write their ids to, wherever they run."""
    return tmp_path / "log"


def ran(log: Path) -> Counter[str]:
    return Counter(log.read_text().split()) if log.exists() else Counter()


@pytest.fixture(params=["local", pytest.param("celery", marks=pytest.mark.workers)])
def resume(request: pytest.FixtureRequest) -> Resume:
    """Goes on from a checkpoint on the backend of the test's turn; returns the result."""
    settings: Settings | None = None
    if request.param == "celery":
        settings = request.getfixturevalue("graflow_settings")

    def go_on(path: object, **options: Any) -> Any:
        wait_until(Path(str(path)).exists, description="the checkpoint that is taken after a task has ended")
        context, _ = CheckpointManager.resume_from_checkpoint(str(path), settings=settings)
        return context.execute(backend=request.param, timeout=60, **options)

    return go_on


@task
def note(name: str, log: str) -> str:
    with open(log, "a") as file:
        file.write(f"{name}\n")
    return name


def noting(name: str, log: Path) -> Any:
    return note(task_id=name, name=name, log=str(log))


@task(inject_context=True)
def keep(context: TaskExecutionContext, path: str, log: str, after: list[str], deferred: bool = False) -> str:
    """Takes a checkpoint at ``path``, once, when others have ended; and notes each time that it runs."""
    import os
    import threading

    tick = threading.Event()
    for _ in range(1000):
        if all(context.get_result(name) is not None for name in after):
            break
        tick.wait(0.02)
    else:
        raise TimeoutError(f"{after} did not end")
    if not os.path.exists(path):
        context.checkpoint({"why": "test"}, path=path, deferred=deferred)
    with open(log, "a") as file:
        file.write("keep\n")
    return "keep"


@task(inject_context=True)
def late(context: TaskExecutionContext, name: str, after: str, log: str) -> str:
    """Ends after another task has."""
    import threading

    tick = threading.Event()
    for _ in range(1000):
        if context.get_result(after) is not None:
            break
        tick.wait(0.02)
    else:
        raise TimeoutError(f"{after} did not end")
    with open(log, "a") as file:
        file.write(f"{name}\n")
    return name


def test_what_has_ended_does_not_run_again(execute: Execute, resume: Resume, path: Path, log: Path) -> None:
    @task
    def sums(first: str, keep: str, count: int) -> list[Any]:
        return [first, keep, count]

    with workflow("chain") as wf:
        (
            noting("first", log)
            >> keep(task_id="keep", path=str(path), log=str(log), after=[], deferred=True)
            >> noting("last", log)
            >> sums
        )
    assert execute(wf, initial_channel={"count": 3}) == ["first", "keep", 3]
    assert ran(log) == {"first": 1, "keep": 1, "last": 1}
    assert resume(path) == ["first", "keep", 3]
    assert ran(log) == {"first": 1, "keep": 1, "last": 2}


def half_done(path: Path, log: Path) -> WorkflowContext:
    @task
    def gather(g: dict[str, Any]) -> dict[str, Any]:
        return g

    with workflow("half done") as wf:
        members = [
            noting("done", log),
            keep(task_id="keep", path=str(path), log=str(log), after=["done"]),
            late(task_id="slow", name="slow", after="keep", log=str(log)) >> noting("slow_end", log),
        ]
        ParallelGroup(members, name="g") >> gather
    return wf


def test_a_half_done_group_runs_its_missing_members_only(
    execute: Execute, resume: Resume, path: Path, log: Path
) -> None:
    expected = {"done": "done", "keep": "keep", "slow_end": "slow_end"}
    assert execute(half_done(path, log)) == expected
    before = ran(log)
    assert before == {"done": 1, "keep": 1, "slow": 1, "slow_end": 1}
    assert resume(path) == expected
    assert ran(log) - before == {"keep": 1, "slow": 1, "slow_end": 1}


def test_groups_in_groups(execute: Execute, resume: Resume, path: Path, log: Path) -> None:
    """The inner group is half done, the outer one not begun at its barrier, nor is the other inner one."""

    @task
    def gather(outer: dict[str, Any]) -> dict[str, Any]:
        return outer

    with workflow("nested") as wf:
        half = ParallelGroup(
            [noting("done", log), keep(task_id="keep", path=str(path), log=str(log), after=["done"])], name="half"
        )
        other = ParallelGroup([late(task_id="other_one", name="other_one", after="keep", log=str(log))], name="other")
        ParallelGroup([half, other], name="outer") >> gather
    expected = {"half": {"done": "done", "keep": "keep"}, "other": {"other_one": "other_one"}}
    assert execute(wf) == expected
    before = ran(log)
    assert resume(path) == expected
    assert ran(log) - before == {"keep": 1, "other_one": 1}


@pytest.mark.parametrize("max_parallel", [None, 1, 2])
def test_a_mapped_task(execute: Execute, resume: Resume, path: Path, log: Path, max_parallel: int | None) -> None:
    @task
    def numbers() -> list[int]:
        return [0, 1, 2, 3, 4]

    @task(inject_context=True)
    def square(context: TaskExecutionContext, number: int, path: str, log: str) -> int:
        import os

        with open(log, "a") as file:
            file.write(f"{number}\n")
        if number == 2 and not os.path.exists(path):
            context.checkpoint(path=path, deferred=True)
        return number * number

    with workflow("mapped") as wf:
        numbers >> square.bind(task_id="square", path=str(path), log=str(log)).map(max_parallel=max_parallel)
    assert execute(wf) == [0, 1, 4, 9, 16]
    before = ran(log)
    assert resume(path) == [0, 1, 4, 9, 16]
    again = ran(log) - before
    assert "2" not in again
    if max_parallel == 1:
        assert again == {"3": 1, "4": 1}


def test_tasks_that_were_added(execute: Execute, resume: Resume, path: Path, log: Path) -> None:
    """What a task added travels in the checkpoint, with the functions that exist nowhere but there."""

    @task(inject_context=True)
    def adds(context: TaskExecutionContext, log: str, path: str) -> str:
        secret = "inner"

        @task
        def quick() -> str:
            with open(log, "a") as file:
                file.write("quick\n")
            return secret

        @task(inject_context=True)
        def keeps(context: TaskExecutionContext) -> str:
            import os
            import threading

            @task
            def deeper() -> str:
                with open(log, "a") as file:
                    file.write("deeper\n")
                return secret * 2

            tick = threading.Event()
            for _ in range(1000):
                if context.get_result("quick") is not None:
                    break
                tick.wait(0.02)
            else:
                raise TimeoutError("quick did not end")
            if not os.path.exists(path):
                context.checkpoint(path=path, deferred=False)
            with open(log, "a") as file:
                file.write("keeps\n")
            context.next_task(deeper)
            return secret

        context.next_task(quick | keeps)
        return "added"

    @task
    def ends(adds: str, deeper: str) -> list[str]:
        return [adds, deeper]

    with workflow("adding") as wf:
        adds(task_id="adds", log=str(log), path=str(path)) >> ends
    assert execute(wf) == ["added", "innerinner"]
    before = ran(log)
    assert resume(path) == ["added", "innerinner"]
    assert ran(log) - before == {"keeps": 1, "deeper": 1}


def test_iterations_go_on_where_they_were(execute: Execute, resume: Resume, path: Path, log: Path) -> None:
    @task(inject_context=True)
    def loop(context: TaskExecutionContext, data: int = 0, path: str = "", log: str = "") -> list[int]:
        import os

        with open(log, "a") as file:
            file.write(f"{data}\n")
        if data == 2 and not os.path.exists(path):
            context.checkpoint(path=path)
        if data < 4:
            context.next_iteration(data + 1)
        return [data, context.cycle_count]

    with workflow("loop") as wf:
        wf.add(loop(task_id="loop", path=str(path), log=str(log)))
    assert execute(wf) == [4, 5]
    before = ran(log)
    assert resume(path) == [4, 5]
    assert ran(log) - before == {"3": 1, "4": 1}


def test_the_channel_comes_along_with_what_is_left_of_its_ttls(execute: Execute, resume: Resume, path: Path) -> None:
    @task(inject_context=True)
    def fill(context: TaskExecutionContext, path: str) -> None:
        channel = context.get_channel()
        channel.set("forever", {"a": [1, 2.5, None]})
        channel.append("list", 1, ttl=3600)
        channel.atomic_add("number", 2)
        channel.set("gone", 1, ttl=0.001)
        wait_until(lambda: not channel.exists("gone"), description="the key to expire")
        context.checkpoint(path=path)

    @task(inject_context=True)
    def look(context: TaskExecutionContext) -> list[Any]:
        channel = context.get_channel()
        channel.append("list", 2)
        channel.atomic_add("number", 1)
        keys = channel.keys()
        found = {key: channel.get(key) for key in keys if key != "gone"}
        return sorted(found.items())

    with workflow("channel") as wf:
        fill(task_id="fill", path=str(path)) >> look
    expected = [("forever", {"a": [1, 2.5, None]}), ("list", [1, 2]), ("number", 3)]
    assert [tuple(item) for item in execute(wf)] == expected
    assert [tuple(item) for item in resume(path)] == expected
    context, _ = CheckpointManager.resume_from_checkpoint(path)
    ttls = context._checkpoint.snapshot.ttls  # nothing public tells of a ttl
    assert set(ttls) == {"list"}
    assert 3500 < ttls["list"] <= 3600


def test_a_checkpoint_tells_what_it_was_taken_with(execute: Execute, path: Path, log: Path) -> None:
    with workflow("told") as wf:
        noting("first", log) >> keep(task_id="keep", path=str(path), log=str(log), after=[], deferred=True)
    _, before = execute(wf, ret_context=True)
    wait_until(path.exists, description="the checkpoint")
    context, metadata = CheckpointManager.resume_from_checkpoint(path)
    assert metadata.session_id == before.session_id
    assert (metadata.steps, metadata.start_node) == (2, "first")
    assert metadata.created_at.endswith("+00:00")
    assert metadata.user_metadata["why"] == "test"
    assert metadata.user_metadata["task_id"] == "keep"
    assert metadata.user_metadata["mode"] == "deferred"
    assert type(metadata).from_dict(metadata.to_dict()) == metadata
    assert context.checkpoint_metadata == metadata.user_metadata
    assert context.get_result("first") == "first"
    assert context.session_id == metadata.session_id


def test_automatic_checkpoints(execute: Execute, resume: Resume, log: Path, tmp_path: Path) -> None:
    names = [f"t{index}" for index in range(7)]
    with workflow("automatic") as wf:
        tasks = [noting(name, log) for name in names]
        for before, after in itertools.pairwise(tasks):
            before >> after
    seen: list[Any] = []
    result = execute(wf, checkpoint_every=2, checkpoint_to=str(tmp_path / "auto"), progress=seen.append)
    assert result == "t6"
    paths = sorted((tmp_path / "auto").rglob("*.ckpt"))
    told = [record for record in seen if record["event"] == "checkpoint_taken"]
    assert sorted(record["path"] for record in told) == [str(path) for path in paths]
    assert len(paths) == 3, "after two, four and six of seven nodes"
    before = ran(log)
    first = str(min(told, key=lambda record: record["at"])["path"])
    assert resume(first) == "t6"
    again = ran(log) - before
    assert "t0" not in again
    assert "t1" not in again
    assert again["t6"] == 1


def test_a_resumed_run_is_a_new_one_that_names_the_old(execute: Execute, resume: Resume, path: Path, log: Path) -> None:
    with workflow("named") as wf:
        keep(task_id="keep", path=str(path), log=str(log), after=[], deferred=True) >> noting("last", log)
    _, old = execute(wf, ret_context=True)
    seen: list[Any] = []
    resume(path, progress=seen.append)
    assert seen[0]["event"] == "run_resumed"
    assert seen[0]["resumed_from"] == old.session_id
    assert [record["node"] for record in seen if record["event"] == "node_started"] == ["last"]


def test_a_checkpoint_of_a_run_that_is_over_tells_its_result(execute: Execute, resume: Resume, path: Path) -> None:
    @task(inject_context=True)
    def only(context: TaskExecutionContext, path: str) -> int:
        context.checkpoint(path=path)
        return 7

    with workflow("over") as wf:
        wf.add(only(task_id="only", path=str(path)))
    assert execute(wf) == 7
    assert resume(path) == 7


def test_a_run_that_waits_for_a_person_can_be_left(execute: Execute, resume: Resume, tmp_path: Path) -> None:
    """Nobody answers: a checkpoint is taken, and whoever resumes it is asked again."""

    @task(inject_context=True)
    def ask(context: TaskExecutionContext) -> list[Any]:
        return [context.request_approval("deploy?", timeout=0.2)]

    with workflow("parked") as wf:
        wf.add(ask)
    assert execute(wf, checkpoint_to=str(tmp_path / "auto")) is None
    wait_until(lambda: any((tmp_path / "auto").rglob("*.ckpt")), description="the checkpoint")
    [kept] = (tmp_path / "auto").rglob("*.ckpt")
    _, metadata = CheckpointManager.resume_from_checkpoint(kept)
    assert metadata.user_metadata["reason"] == "feedback_timeout"
    assert metadata.user_metadata["task_id"] == "ask"
    assert metadata.user_metadata["feedback_id"].startswith(metadata.session_id)
    assert resume(kept, feedback=lambda request: True) == [True]


GO_ON = """
import json, sys
from graflow_celery import CheckpointManager, WorkflowEngine
context, metadata = CheckpointManager.resume_from_checkpoint(sys.argv[1])
print(json.dumps(WorkflowEngine().execute(context)))
"""


def test_another_process_goes_on_without_the_script(execute: Execute, path: Path, log: Path, tmp_path: Path) -> None:
    """The tasks of this file are not importable there: they travel in the checkpoint."""
    assert execute(half_done(path, log)) is not None
    before = ran(log)
    done = subprocess.run(
        [sys.executable, "-c", GO_ON, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"done": "done", "keep": "keep", "slow_end": "slow_end"}
    assert ran(log) - before == {"keep": 1, "slow": 1, "slow_end": 1}


@pytest.mark.workers
def test_on_workers_checkpoints_go_to_the_store(graflow_settings: Settings, log: Path) -> None:
    @task(inject_context=True)
    def asks(context: TaskExecutionContext) -> str | None:
        context.checkpoint(deferred=False)
        return context.execution_context.last_checkpoint_path

    with workflow("store") as wf:
        asks >> noting("last", log)
    run: Run = wf.submit(settings=graflow_settings)
    run.wait(60)
    [kept] = run.checkpoints()
    assert kept.startswith("redis:")
    assert run.result("asks") == kept
    again, _ = CheckpointManager.resume_from_checkpoint(kept, settings=graflow_settings)
    assert WorkflowEngine().execute(again) == "last"
    again, _ = CheckpointManager.resume_from_checkpoint(kept, settings=graflow_settings)
    assert again.submit().wait(60) == "succeeded"


def test_making_a_context_touches_no_file(path: Path, log: Path, tmp_path: Path) -> None:
    with workflow("quiet") as wf:
        noting("first", log) >> noting("second", log)
    log.touch()
    _, context = wf.execute(ret_context=True)
    assert [item.name for item in tmp_path.iterdir()] == ["log"]
    where, _ = CheckpointManager.create_checkpoint(context, metadata={"k": 1})
    assert Path(where).parent == Path("checkpoints") / context.session_id
    assert context.last_checkpoint_path == where


def test_the_engine_refuses_what_is_no_checkpoints_context(log: Path) -> None:
    with workflow("no checkpoint") as wf:
        noting("first", log) >> noting("second", log)
    _, context = wf.execute(ret_context=True)
    with pytest.raises(ConfigError, match="resume_from_checkpoint"):
        WorkflowEngine().execute(context)
    where, _ = CheckpointManager.create_checkpoint(context)
    resumed, _ = CheckpointManager.resume_from_checkpoint(where)
    with pytest.raises(ConfigError, match="start_node='second'"):
        WorkflowEngine().execute(resumed, start_task_id="second")


def kept_bytes(log: Path, settings: Settings | None = None) -> bytes:
    with workflow("bytes") as wf:
        noting("first", log) >> noting("second", log)
    _, context = wf.execute(ret_context=True, settings=settings)
    where, _ = CheckpointManager.create_checkpoint(context)
    return Path(where).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"hello", "no checkpoint of graflow_celery"),
        (lambda data: b"", "no checkpoint of graflow_celery"),
        (lambda data: b"\x80\x05N.", "is a pickle"),
        (lambda data: data.replace(MAGIC + b"2\n", MAGIC + b"3\n", 1), "has format 3 and this process reads 2"),
        (lambda data: data.replace(MAGIC + b"2\n", MAGIC + b"x\n", 1), "damaged"),
        (lambda data: data[:-1], "damaged"),
        (lambda data: data[: len(MAGIC) + 1], "damaged"),
        (lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:], "damaged"),
    ],
    ids=["text", "empty", "pickle", "newer", "odd version", "cut short", "head alone", "changed"],
)
def test_what_cannot_be_read_says_why(log: Path, path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    path.parent.mkdir()
    path.write_bytes(change(kept_bytes(log)))
    with pytest.raises(CheckpointError, match=message) as caught:
        CheckpointManager.resume_from_checkpoint(path)
    assert caught.value.path == str(path)
    assert caught.value.exit_code == 2


def test_a_missing_file_and_an_unknown_address(path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        CheckpointManager.resume_from_checkpoint(path)
    with pytest.raises(CheckpointError, match="s3://bucket/run: checkpoints are kept in files or in Redis"):
        CheckpointManager.resume_from_checkpoint("s3://bucket/run")


@pytest.mark.parametrize(("wrote", "reads"), [("one", "two"), (None, "two")])
def test_another_projects_secret_reads_nothing(log: Path, path: Path, wrote: str | None, reads: str) -> None:
    path.parent.mkdir()
    path.write_bytes(kept_bytes(log, Settings(secret_key=SecretStr(wrote)) if wrote else None))
    with pytest.raises(CheckpointError, match="GRAFLOW_CELERY_SECRET_KEY"):
        CheckpointManager.resume_from_checkpoint(path, settings=Settings(secret_key=SecretStr(reads)))


def test_signed_with_the_same_secret_it_is_read(log: Path, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(kept_bytes(log, Settings(secret_key=SecretStr("one"))))
    context, _ = CheckpointManager.resume_from_checkpoint(path, settings=Settings(secret_key=SecretStr("one")))
    assert context.execute() == "second"


class Bomb:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.path),))


def test_nothing_is_unpickled_before_the_signature_was_checked(path: Path, log: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with workflow("bomb") as wf:
        noting("first", log)
    _, context = wf.execute(ret_context=True, initial_channel={"bomb": Bomb(str(trace))})
    CheckpointManager.create_checkpoint(context, path=path)
    with pytest.raises(CheckpointError, match=r"not signed|signature of it is wrong"):
        CheckpointManager.resume_from_checkpoint(path, settings=Settings(secret_key=SecretStr("two")))
    assert not trace.exists()
    CheckpointManager.resume_from_checkpoint(path)
    assert trace.exists(), "the bomb works"


def test_a_checkpoint_after_a_task_knows_nothing_of_what_comes_after(
    execute: Execute, resume: Resume, path: Path, log: Path
) -> None:
    """Were it taken when what follows has begun, a failure there could not be mended: the run would have ended."""

    @task(inject_context=True)
    def kept(context: TaskExecutionContext) -> str:
        context.checkpoint(path=str(path))
        return str(note.func("kept", str(log)))

    @task
    def fails(permission: str) -> str:
        if not Path(permission).exists():
            raise PermissionError("not yet")
        return "done"

    permission = path.parent.parent / "permission"
    with workflow("mended") as wf:
        kept >> fails(task_id="fails", permission=str(permission))
    with pytest.raises(PermissionError):
        execute(wf)
    permission.touch()
    assert resume(path) == "done"
    assert ran(log) == {"kept": 1}
