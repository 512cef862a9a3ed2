"""Programs as they are written for graflow 0.2.0, without a word of this package in them."""

ORDERS = """
    from graflow.core.decorators import task
    from graflow.core.handlers.group_policy import AtLeastNGroupPolicy
    from graflow.core.retry import RetryPolicy
    from graflow.core.task import ParallelGroup
    from graflow.core.workflow import workflow

    PRICES = {"pen": 2, "book": 12, "lamp": 30}


    @task
    def load():
        return [("pen", 10), ("book", 3), ("lamp", 1)]


    @task
    def revenue(load):
        return sum(PRICES[name] * count for name, count in load)


    @task(inject_context=True, retry_policy=RetryPolicy(max_retries=2, initial_interval=0.05))
    def stock(context, load):
        if context.retry_count < 2:
            raise ConnectionError("the warehouse does not answer")
        context.get_channel().set("stock.retries", context.retry_count)
        return {name: 100 - count for name, count in load}


    @task
    def weather():
        raise LookupError("no such service")


    @task(inject_context=True)
    def report(context, revenue, stock):
        retries = context.get_channel().get("stock.retries")
        return f"revenue {revenue}, {stock['pen']} pens left, stock after {retries} retries"


    with workflow("orders") as wf:
        figures = ParallelGroup([revenue, stock, weather], name="figures")
        load >> figures.with_execution(policy=AtLeastNGroupPolicy(2)) >> report

    if __name__ == "__main__":
        print(wf.execute())
"""

REVIEW = """
    from graflow.core.context import TaskExecutionContext
    from graflow.core.decorators import task
    from graflow.core.workflow import workflow

    with workflow("review") as wf:

        @task(inject_context=True)
        def draft(ctx: TaskExecutionContext):
            version = ctx.get_channel().get("version", 0) + 1
            ctx.get_channel().set("version", version)
            return "word " * version

        @task(inject_context=True)
        def review(ctx: TaskExecutionContext, draft: str):
            ctx.get_channel().append("reviews", len(draft.split()))
            if len(draft.split()) < 3:
                ctx.next_task(wf.graph.get_node("draft"))
            return draft.strip()

        @task(inject_context=True, max_cycles=5)
        def polish(ctx: TaskExecutionContext, left=3):
            ctx.get_channel().append("rounds", left)
            if left and ctx.can_iterate():
                ctx.next_iteration(left - 1)
                return None
            ctx.terminate_workflow("nothing is left to polish")
            return f"published after {ctx.cycle_count} rounds"

        draft >> review >> polish

    if __name__ == "__main__":
        result, context = wf.execute(ret_context=True)
        print(result, context.get_channel().get("reviews"), context.get_channel().get("rounds"))
"""

BATCHES = """
    import os
    import sys

    from graflow.core.checkpoint import CheckpointManager
    from graflow.core.decorators import task
    from graflow.core.engine import WorkflowEngine
    from graflow.core.workflow import workflow

    with workflow("batches") as wf:

        @task(inject_context=True)
        def load(ctx):
            ctx.get_channel().append("done", "load")
            return list(range(10))

        @task(inject_context=True)
        def add(ctx, load):
            ctx.get_channel().append("done", "add")
            folder = ctx.get_channel().get("folder", os.getcwd())
            ctx.checkpoint(metadata={"stage": "added"}, path=os.path.join(folder, "added.pkl"))
            return sum(load)

        @task(inject_context=True)
        def tell(ctx, add):
            ctx.get_channel().append("done", "tell")
            return f"the sum is {add}"

        load >> add >> tell

    if __name__ == "__main__":
        if sys.argv[1:] == ["resume"]:
            context, metadata = CheckpointManager.resume_from_checkpoint("added.pkl")
            result = WorkflowEngine().execute(context)
            print(result, metadata.user_metadata["stage"], context.get_channel().get("done"))
        else:
            result, context = wf.execute(ret_context=True)
            print(result, context.get_channel().get("done"))
"""
