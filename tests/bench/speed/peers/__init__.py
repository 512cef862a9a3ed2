"""Programs that run in the environments of other task queues, beside this package and not in it."""
