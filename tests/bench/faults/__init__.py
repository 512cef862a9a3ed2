"""Faults: how long until what a dead or hung worker held runs elsewhere, ours beside plain Celery."""
