"""Celery's settings for workers whose control commands go through an exchange of their own."""

import os

control_exchange = os.environ["GRAFLOW_TEST_CONTROL"]
