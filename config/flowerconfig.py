"""Flower's settings: copy, edit, and name the copy on the command line.

    celery -A graflow_celery flower --conf=config/flowerconfig.py

What stands on the command line beats a line here. Flower reads the environment too (``FLOWER_BASIC_AUTH``
and so on): the place for passwords.
"""

# Flower can revoke tasks and stop workers, and asks nobody for a password by itself: so it listens on this
# machine only. Before you open it ("" is every interface), set basic_auth or the oauth2 options, or
# read_only.
address = "127.0.0.1"
port = 5555
# basic_auth = ["user:password"]
# read_only = True

# Behind a reverse proxy, at a path of its own.
# url_prefix = "flower"
# xheaders = True

# The args column names the run and its nodes.
tasks_columns = "state,args,name,received,started,runtime,worker,uuid"
natural_time = False

# Tasks kept in memory: the oldest go first. A thousand tasks take about one MB.
max_tasks = 50_000

# Workers that were gone for so many seconds leave the list: replaced ones would pile up.
purge_offline_workers = 3600

# Keep the list of tasks over a restart, written every so many milliseconds.
# persistent = True
# db = "/var/lib/flower/flower.db"
# state_save_interval = 60_000

# RabbitMQ's management API, for the Broker page (with Redis as broker it needs nothing).
# broker_api = "http://guest:guest@127.0.0.1:15672/api/"
