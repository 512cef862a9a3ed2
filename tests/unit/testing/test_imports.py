from __future__ import annotations

import subprocess
import sys


def test_the_cluster_needs_neither_pytest_nor_pytest_celery() -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(["pytest", "pytest_celery", "pytest_docker_tools", "psutil"]))
from graflow_celery.testing import embedded_cluster, wait_until
assert wait_until(lambda: embedded_cluster, description="an import")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_fixtures_are_importable_by_name() -> None:
    from graflow_celery.testing import graflow_cluster, graflow_environment, graflow_settings

    assert len({graflow_cluster, graflow_environment, graflow_settings}) == 3
