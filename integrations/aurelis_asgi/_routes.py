"""The route that answered: what telemetry outside of the middleware calls a request, also where no router runs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from starlette.types import Scope

_FASTAPI = "fastapi.telemetry"
"""Where FastAPI keeps what its own spans and metrics say of a request. No public interface, so nothing relies on it."""


class Route:
    """Stands in for the route that answered when the response was made."""

    __slots__ = ("path", "path_format")

    def __init__(self, template: str) -> None:
        self.path = template
        self.path_format = template


_route = lru_cache(1024)(Route)


class Routing:
    """What is known of a request's route before the app runs.

    Args:
        scope: of the request, as it reaches the middleware.
        before: template of the route that has answered the same request before; empty where that is not known.
    """

    __slots__ = ("_before", "_known", "_prefix", "_root", "_selected")

    def __init__(self, scope: Scope, before: str = "") -> None:
        self._before = before
        self._root: str = scope.get("root_path", "")
        self._known = known = scope.get(_FASTAPI)
        self._prefix, self._selected = _prefix(known), getattr(known, "route", None)

    def template(self, scope: Scope) -> str:
        """Template of the route that the app's router has left in the scope; empty where there is none.

        It begins below the middleware's own root path, and has the mounts on the way to the route in it: by their
        templates where FastAPI gives them, otherwise as they were matched.
        """
        known = scope.get(_FASTAPI)
        # Another record than that of the request belongs to an app below, which knows nothing of what is above it.
        selected = getattr(known, "route", None) if known is self._known else None
        if isinstance(selected, str) and selected != self._selected and selected.startswith(self._prefix):
            return selected[len(self._prefix) :]
        template = route_template(scope)
        root: str = scope.get("root_path", "")
        if template and root.startswith(self._root):
            template = root[len(self._root) :].rstrip("/") + template
        # Without that record, as in a refresh, the prefix of an included router is not known.
        return self._before if template and self._before.endswith(template) else template

    def tell(self, outer: Scope, inner: Scope) -> None:
        """Leave the route of a scope of the app's own in that of the request."""
        if "route" in inner:
            moved = inner.get("root_path", "") != self._root
            outer["route"] = _route(self.template(inner)) if moved else inner["route"]


def restore(scope: Scope, template: str) -> None:
    """Have the scope of a request say which route has answered it, as if the router had run.

    Telemetry outside calls requests by their route: spans and metrics of Starlette, FastAPI and OpenTelemetry's own
    instrumentation. FastAPI's are written with the last message, so this comes before the first.
    """
    if "route" not in scope or route_template(scope) != template:
        scope["route"] = _route(template)
    known = scope.get(_FASTAPI)
    if known is not None:
        _restore_for_fastapi(known, template)


def without_telemetry(scope: Scope) -> Scope:
    """A copy of a scope for work that goes on when its request is over, and with it the request's span."""
    return {name: value for name, value in scope.items() if name != _FASTAPI}


def route_template(scope: Scope) -> str:
    """Template of the route in the scope; empty where there is none."""
    route = scope.get("route")
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    return template if isinstance(template, str) else ""


def _prefix(known: object) -> str:
    prefix = getattr(known, "_mount_prefix", "")
    return prefix if isinstance(prefix, str) else ""


def _restore_for_fastapi(known: Any, template: str) -> None:  # `Any`: a class of FastAPI's that has no public name
    try:
        if known.route is not None and known.route.endswith(template):
            return
        known.route = route = _prefix(known) + template
        if known.span is not None:
            known.span.set_attribute("http.route", route)
            known.span.update_name(f"{known.span_method} {route}")
    except Exception:  # noqa: BLE001  # another release of FastAPI, or a tracer that raises; a hit is answered all the same
        return
