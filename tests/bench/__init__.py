"""Benchmarks: ours against raw Celery canvas, on the same server, measured alternately in one run."""
