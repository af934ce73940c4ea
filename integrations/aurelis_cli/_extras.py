"""Says what is not installed, before anything that needs it is imported."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

EXTRA: Final = "server"
"""The extra that brings all that this package needs."""

COMMAND_LINE: Final = ("rich", "typer")
DEMO: Final = (
    "fastapi",
    "httpx2",
    "numpy",
    "openai",
    "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry.exporter.prometheus",
    "opentelemetry.sdk",
    "prometheus_client",
    "rapidfuzz",
    "redis",
    "starlette",
    "uvicorn",
)

TOP: Final = ("httpx2", "prometheus_client", "rich")
WARM: Final = ("httpx2", "pydantic", "redis", "rich")


def missing(modules: Sequence[str]) -> str | None:
    """The message for whoever lacks one of `modules`; `None` if all are there."""
    absent = [name for name in modules if not _is_there(name)]
    if not absent:
        return None
    return (
        f"aurelis-cache: not installed: {', '.join(absent)}. "
        f'The extra "{EXTRA}" brings what this command needs: pip install "aurelis-cache[{EXTRA}]"'
    )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is absent
        return False
