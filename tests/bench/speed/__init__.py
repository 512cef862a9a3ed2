"""How fast the engine is beside raw Celery, and beside other task queues: `python -m tests.bench`, `make bench`."""
