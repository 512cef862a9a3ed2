"""What these tests share."""

import os

# Faults happen to messages that a worker holds and has not begun, too: there have to be some.
os.environ.setdefault("GRAFLOW_CELERY_PREFETCH", "4")
