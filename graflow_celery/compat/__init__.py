"""Programs written for graflow 0.2.0, unchanged: after :func:`install`, ``import graflow`` means this package.

::

    import graflow_celery.compat

    graflow_celery.compat.install()

    from graflow.core.decorators import task
    from graflow.core.workflow import workflow

Every module path of graflow is known: it leads to our names, or it is refused with an ImportError that says what to use
instead. Workers of ``celery -A graflow_celery`` install it if the setting ``compat`` says so; ``graflow-celery run
--graflow`` installs it before it loads a file.
"""

from __future__ import annotations

from graflow_celery.compat.finder import install, installed, uninstall
from graflow_celery.errors import CompatibilityError

__all__ = ["CompatibilityError", "install", "installed", "uninstall"]
