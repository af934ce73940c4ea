"""All dashboards, and the files that hold them."""

from pathlib import Path

from . import http, layers, models, overview, reliability
from ._build import written
from ._records import Dashboard

FOLDER = Path(__file__).resolve().parents[2] / "grafana" / "dashboards"
DASHBOARDS: dict[str, Dashboard] = {
    "overview.json": overview.DASHBOARD,
    "http.json": http.DASHBOARD,
    "models.json": models.DASHBOARD,
    "layers.json": layers.DASHBOARD,
    "reliability.json": reliability.DASHBOARD,
}


def texts() -> dict[str, str]:
    """Returns what the files should hold, by name."""
    return {name: written(dashboard) for name, dashboard in DASHBOARDS.items()}


def write() -> None:
    """Writes all files."""
    for name, content in texts().items():
        (FOLDER / name).write_text(content)
