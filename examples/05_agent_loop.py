"""Agent loop: an agent decides, a tool acts and leads back to the agent, until that one jumps on to the answer.
Run it: graflow-celery run examples/05_agent_loop.py --backend embedded"""

import sysconfig
import zlib
from pathlib import Path

from graflow_celery import TaskExecutionContext, task, workflow


class Searcher:
    """Where a language model would stand: any object with `run` is an agent. This one narrows an interval."""

    def run(self, low: int, high: int) -> int | None:
        return (low + high) // 2 if high - low > 1 else None


@task(inject_context=True, inject_llm_agent="searcher")
def decide(context: TaskExecutionContext, llm_agent: Searcher, low: int = 0, high: int = 99_999) -> int | None:
    wanted = llm_agent.run(low, high)
    context.next_task(answer if wanted is None else try_it, goto=True)
    return wanted


@task(inject_context=True)
def try_it(context: TaskExecutionContext, decide: int, limit: int = 4096) -> None:
    """The tool: do so many bytes of a source file, compressed, fit into `limit`?"""
    text = Path(sysconfig.get_path("stdlib"), "argparse.py").read_bytes()
    fits = len(zlib.compress(text[:decide])) <= limit
    context.get_channel().set("low" if fits else "high", decide)


@task
def answer(low: int) -> int:
    return low


with workflow("agent_loop") as wf:
    decide >> try_it >> decide >> answer
wf.register_llm_agent("searcher", Searcher)
