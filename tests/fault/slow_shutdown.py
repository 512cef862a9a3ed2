"""Celery's settings for workers that end softly: what runs has a moment to end, then it is given up."""

worker_soft_shutdown_timeout = 1.0
