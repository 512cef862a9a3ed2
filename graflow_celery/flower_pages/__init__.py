"""What we add to Flower: a Pipelines section, and task rows that name workflow, node and attempt.

`hook` is all that a worker loads of it; the rest is loaded when Flower is started.
"""
