"""Flower's templates and ours, and what we put into three of Flower's: a tab, and links from tasks to their runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tornado import template

OWN = Path(__file__).with_name("templates")

_TAB = """<li class="nav-item">
          <a class="nav-link{% if active_tab == 'pipelines' %} active{% end %}" href="{{ reverse_url('pipelines') }}"
            {% if active_tab == 'pipelines' %}aria-current="page"{% end %}>Pipelines</a>
        </li>
      """
_LINK = """{% if (task.name or '').startswith('graflow.') and getattr(task, 'root_id', None) %}
<a id="pipeline-link" class="btn btn-outline-secondary" title="Run {{ task.root_id }}"
  href="{{ reverse_url('pipeline', task.root_id) }}">Run in Pipelines</a>
{% end %}"""
_SCRIPT = """{% block extra_scripts %}
<span id="tasks-of-runs" data-run="{{ reverse_url('pipeline', '-') }}" hidden></span>
<script type="module" src="{{ reverse_url('pipelines-static', 'tasks.js') }}"></script>
{% end %}
"""
#: Template of Flower's -> what ours goes before or after there, and ours. One that has changed stays as it is.
ADDED = {
    "navbar.html": ("</ul>", _TAB + "</ul>"),
    "tasks.html": ("{% block container %}", _SCRIPT + "{% block container %}"),
    "task.html": ('<div class="detail-actions">', '<div class="detail-actions">' + _LINK),
}


class TemplateLoader(template.BaseLoader):
    """Finds a template among ours, then among Flower's."""

    def __init__(self, flowers: str, **options: Any) -> None:
        super().__init__(**options)
        self._places = (OWN, Path(flowers))

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """All names are from the top: neither has templates in directories."""
        return name

    def _create_template(self, name: str) -> template.Template:
        path = next((place / name for place in self._places if (place / name).exists()), None)
        if path is None:
            raise FileNotFoundError(f"No template {name!r} in {os.pathsep.join(map(str, self._places))}")
        text = path.read_text(encoding="utf-8")
        marker, ours = ADDED.get(name, ("", ""))
        if marker:
            text = text.replace(marker, ours, 1)
        return template.Template(text, name=name, loader=self)
