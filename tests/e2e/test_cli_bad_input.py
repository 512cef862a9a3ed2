"""Bad input: each gets a message of one to three lines, the right exit code, soon, and leaves nothing running."""

from __future__ import annotations

import pytest

from graflow_celery.embedded import EmbeddedServer
from graflow_celery.testing import wait_until
from tests.e2e.shell import Answer, Shell
from tests.e2e.workflows import GREETING, SLOW

WRONG_USE, RUN_FAILED, OUTSIDE_MISSING = 2, 1, 3
SOON = 20.0


def ask(shell: Shell, *arguments: str) -> Answer:
    """A command that is to end soon, with nothing left of it."""
    with shell.start(*arguments) as command:
        answer = command.wait(SOON)
        wait_until(lambda: not command.left_running(), timeout=5, description="nothing to be left")
    return answer


# --- the workflow file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("run",), ("run", "--backend", "celery"), ("submit",), ("graph",)])
def test_a_syntax_error(lonely_shell: Shell, command: tuple[str, ...]) -> None:
    lonely_shell.write("etl.py", "x = 1\n\ndef broken(:\n    pass\n")
    answer = ask(lonely_shell, *command, "etl.py")
    assert (answer.code, answer.out) == (WRONG_USE, "")
    assert answer.complaint == ["error: etl.py:3: invalid syntax", "  def broken(:"]


def test_no_such_file(lonely_shell: Shell) -> None:
    lonely_shell.write("greeting.py", GREETING)
    answer = ask(lonely_shell, "run", "greetings.py")
    assert answer.code == WRONG_USE
    assert answer.complaint == ["error: No file 'greetings.py'. Close to it: greeting.py."]


def test_a_file_that_raises(lonely_shell: Shell) -> None:
    lonely_shell.write("etl.py", "\nvalue = {}['key']\n")
    answer = ask(lonely_shell, "run", "etl.py")
    assert answer.code == WRONG_USE
    assert answer.complaint == ["error: etl.py:2: KeyError: 'key'"]


@pytest.mark.parametrize("backend", ["local", "celery"])
def test_a_task_id_used_twice(lonely_shell: Shell, backend: str) -> None:
    lonely_shell.write(
        "etl.py",
        """
        from graflow_celery import task, workflow

        @task
        def fetch():
            return 1

        @task("fetch")
        def fetch_more():
            return 2

        with workflow("etl") as wf:
            fetch >> fetch_more
        """,
    )
    answer = ask(lonely_shell, "run", "etl.py", "--backend", backend)
    assert answer.code == WRONG_USE
    assert "etl.py:13: Task id 'fetch' is used by two different tasks of this workflow." in answer.complaint[0]
    assert "@task(id=...)" in answer.complaint[0]


def test_an_empty_group(lonely_shell: Shell) -> None:
    lonely_shell.write(
        "etl.py",
        """
        from graflow_celery import ParallelGroup, task, workflow

        @task
        def fetch():
            return 1

        with workflow("etl") as wf:
            fetch >> ParallelGroup([], name="packages")
        """,
    )
    answer = ask(lonely_shell, "run", "etl.py")
    assert answer.code == WRONG_USE
    assert "etl.py:9: Parallel group 'packages' has no members." in answer.complaint[0]


@pytest.mark.parametrize("backend", ["local", "celery", "embedded"])
def test_an_unknown_start_node(lonely_shell: Shell, backend: str) -> None:
    lonely_shell.write("greeting.py", GREETING)
    answer = ask(lonely_shell, "run", "greeting", "--start", "jion", "--backend", backend)
    assert answer.code == WRONG_USE
    assert answer.complaint[0].startswith("error: The workflow has no node 'jion'. Its nodes are: ")
    assert "join" in answer.complaint[0]


@pytest.mark.parametrize(
    "arguments",
    [("--workers", "3"), ("--param", "novalue"), ("--timeout", "-1"), ("--backend", "dask"), ("--nonsense",)],
)
def test_options_that_make_no_sense(lonely_shell: Shell, arguments: tuple[str, ...]) -> None:
    lonely_shell.write("greeting.py", GREETING)
    answer = ask(lonely_shell, "run", "greeting", *arguments)
    assert answer.code == WRONG_USE
    assert arguments[0] in answer.complaint[0]


@pytest.mark.parametrize("name", ["a b", "{x}", "../x", "", "x" * 200])
def test_a_run_id_that_cannot_be_one(lonely_shell: Shell, name: str) -> None:
    lonely_shell.write("greeting.py", GREETING)
    answer = ask(lonely_shell, "submit", "greeting", "--run-id", name)
    assert answer.code == WRONG_USE
    assert "--run-id" in answer.complaint[0]


# --- the outside ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "greeting", "--backend", "celery"),
        ("submit", "greeting"),
        ("runs",),
        ("show", "123"),
        ("watch", "123"),
        ("cancel", "123"),
        ("monitor",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_server(lonely_shell: Shell, arguments: tuple[str, ...]) -> None:
    lonely_shell.write("greeting.py", GREETING)
    answer = ask(lonely_shell, *arguments)
    assert (answer.code, answer.out) == (OUTSIDE_MISSING, "")
    assert "No server answers at redis://127.0.0.1:1/0" in answer.complaint[0]
    assert "GRAFLOW_CELERY_REDIS_URL" in answer.complaint[0]


@pytest.mark.workers
def test_a_server_but_no_broker(shell: Shell) -> None:
    shell.write("greeting.py", GREETING)
    answer = shell("run", "greeting", "--backend", "celery", GRAFLOW_CELERY_BROKER_URL="amqp://me:secret@127.0.0.1:1//")
    assert answer.code == OUTSIDE_MISSING
    assert "No server answers at amqp://me:***@127.0.0.1:1//" in answer.complaint[0]
    assert "secret" not in answer.err


@pytest.mark.parametrize("command", [("run", "--backend", "celery"), ("submit",)], ids=["run", "submit"])
def test_no_live_worker(server: EmbeddedServer, lonely_shell: Shell, command: tuple[str, ...]) -> None:
    lonely_shell.write("greeting.py", GREETING)
    lonely_shell.env["GRAFLOW_CELERY_REDIS_URL"] = server.url
    answer = ask(lonely_shell, *command, "greeting.py")
    assert (answer.code, answer.out) == (OUTSIDE_MISSING, "")
    assert answer.complaint[0].startswith("error: No live worker consumes queue 'celery'. Start one: celery -A")
    assert "No runs" in ask(lonely_shell, "runs").out


def test_no_live_worker_and_submitted_all_the_same(server: EmbeddedServer, lonely_shell: Shell) -> None:
    lonely_shell.write("greeting.py", GREETING)
    lonely_shell.env["GRAFLOW_CELERY_REDIS_URL"] = server.url
    answer = ask(lonely_shell, "submit", "greeting", "--queue-anyway", "--run-id", "my-run")
    assert (answer.code, answer.out) == (0, "my-run\n")
    assert answer.err.startswith("warning: No live worker consumes queue 'celery'.")
    with lonely_shell.start("watch", "my-run") as watching:
        watching.says("waiting: no live worker consumes 'celery'. Start one: graflow-celery worker -Q celery")
        assert ask(lonely_shell, "cancel", "my-run").code == 0
        assert watching.wait(SOON).code == RUN_FAILED


@pytest.mark.workers
def test_a_queue_that_no_worker_consumes(shell: Shell) -> None:
    shell.write("etl.py", SLOW.replace("@task\n    def after", '@task(queue="gpu")\n    def after'))
    answer = ask(shell, "submit", "etl")
    assert answer.code == OUTSIDE_MISSING
    assert answer.complaint[0].startswith("error: No live worker consumes queue 'gpu'.")


# --- what cannot travel -----------------------------------------------------------------------------------------------


@pytest.mark.workers
def test_a_module_that_a_worker_cannot_import(shell: Shell) -> None:
    shell.write("private_pack/__init__.py", "")
    shell.write("private_pack/jobs.py", GREETING)
    answer = ask(shell, "run", "private_pack.jobs", "--backend", "celery")
    assert answer.code == RUN_FAILED
    assert "Task 'names': module 'private_pack.jobs' cannot be imported on worker" in answer.complaint[0]
    assert "PYTHONPATH" in answer.complaint[0]


@pytest.mark.workers
def test_an_argument_that_cannot_be_sent(shell: Shell) -> None:
    shell.write(
        "etl.py",
        """
        import threading
        from graflow_celery import task, workflow

        @task
        def hold(lock):
            return 1

        with workflow("etl") as wf:
            wf.add(hold(task_id="held", lock=threading.Lock()))
        """,
    )
    answer = ask(shell, "run", "etl", "--backend", "celery")
    assert answer.code in (RUN_FAILED, WRONG_USE)
    assert "'lock'" in answer.complaint[0]
    assert "'held'" in answer.complaint[0]
    assert "lock" in answer.complaint[0]


@pytest.mark.workers
def test_a_function_that_cannot_be_sent(shell: Shell) -> None:
    shell.write(
        "etl.py",
        """
        import threading
        from graflow_celery import task, workflow

        guard = threading.Lock()

        @task
        def hold():
            with guard:
                return 1

        with workflow("etl") as wf:
            wf.add(hold)
        """,
    )
    answer = ask(shell, "run", "etl", "--backend", "celery")
    assert answer.code in (RUN_FAILED, WRONG_USE)
    assert "'hold'" in answer.complaint[0]
    assert "'guard'" in answer.complaint[0]


@pytest.mark.workers
def test_a_result_that_cannot_be_sent(shell: Shell) -> None:
    shell.write(
        "etl.py",
        """
        import threading
        from graflow_celery import task, workflow

        @task
        def make():
            return threading.Lock()

        @task
        def use(make):
            return 1

        with workflow("etl") as wf:
            make >> use
        """,
    )
    answer = ask(shell, "run", "etl", "--backend", "celery")
    assert answer.code == RUN_FAILED
    assert answer.complaint[0].startswith("error: Result of task 'make': ")
    assert "lock" in answer.complaint[0]
