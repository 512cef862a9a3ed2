"""Workflow files for the tests of the command line."""

GREETING = """
    from graflow_celery import ParallelGroup, task, workflow

    @task
    def names(count=3):
        return [f"name{index}" for index in range(count)]

    @task
    def greet(index: int, names):
        return f"{names[index % len(names)]}!"

    @task
    def join(greetings, ending="."):
        return " ".join(greetings.values()) + ending

    with workflow("greeting") as wf:
        greetings = ParallelGroup([greet(task_id=f"greet{i}", index=i) for i in range(4)], name="greetings")
        names >> greetings >> join
"""

FAILING = """
    from graflow_celery import task, workflow

    class BadRow(Exception):
        pass

    def parse(text):
        raise BadRow(f"{text!r} is no row")

    @task
    def fetch():
        return "x;y"

    @task(max_retries=1)
    def clean(fetch):
        return parse(fetch)

    with workflow("failing") as wf:
        fetch >> clean
"""

FAILING_GROUP = """
    from graflow_celery import ParallelGroup, task, workflow

    @task
    def begin():
        return 0

    @task
    def member(index: int):
        if index % 2:
            raise ValueError(f"odd: {index}")
        return index

    with workflow("failing_group") as wf:
        begin >> ParallelGroup([member(task_id=f"m{i}", index=i) for i in range(12)], name="members")
"""

SLOW = """
    import threading
    from graflow_celery import task, workflow

    @task
    def slow(seconds=30.0):
        threading.Event().wait(seconds)
        return "done"

    @task
    def after(slow):
        return slow

    with workflow("slow") as wf:
        slow >> after
"""

ASKING = """
    from graflow_celery import TaskExecutionContext, task, workflow

    @task(inject_context=True)
    def review(context: TaskExecutionContext, seconds=180.0):
        if not context.request_approval("publish the report?", timeout=seconds):
            return "nothing"
        tone = context.request_selection("in which tone?", ["plain", "very loud"], timeout=seconds)
        return f"{tone}: " + context.request_text_input("title?", timeout=seconds)

    @task
    def publish(review):
        return f"published {review}"

    with workflow("asking") as wf:
        review >> publish
"""

SCORES = """
import threading
from graflow_celery import task, workflow

@task
def items():
    return list(range(40))

@task
def score(item):
    threading.Event().wait(0.1)
    if item == 5:
        raise ValueError(f"no score for {item}")
    return item

@task
def last():
    return "done"

with workflow("scores") as wf:
    items >> score.map().with_execution(policy="best_effort") >> last
"""

GROWING = """
from graflow_celery import parallel, task, workflow

@task
def items():
    return list(range(4))

@task
def score(item):
    if item == 2:
        raise ValueError(f"no score for {item}")
    return item

@task(inject_context=True)
def grows(context):
    context.next_task(parallel(one, two))

@task
def one(): ...

@task
def two(): ...

with workflow("growing") as wf:
    items >> score.map().with_execution(policy="best_effort") >> grows
"""

DEADLY = """
    import os, signal
    from graflow_celery import task, workflow

    @task(max_losses=2)
    def deadly():
        os.kill(os.getpid(), signal.SIGKILL)

    with workflow("deadly") as wf:
        wf.add(deadly)
"""
