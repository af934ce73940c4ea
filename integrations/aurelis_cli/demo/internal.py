"""The internal port of a worker: `/metrics` for Prometheus, the app's own counts, and the switch for faults.

It lies outside the cached app and in a thread of its own, so that looking changes nothing that is looked at.
"""

from __future__ import annotations

import json
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from .faults import Switch
from .origin import Origin


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the standard library
        """Log nothing."""


def serve_internal(listener: socket.socket, registry: CollectorRegistry, origin: Origin, faults: Switch) -> None:
    """Answer on `listener` from now on, in a daemon thread. It returns at once."""
    exposition: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
            case "GET", "/metrics":
                return exposition(environ, start_response)
            case "GET", "/origin":  # calls that reached the app, by kind
                start_response("200 OK", [("Content-Type", "application/json")])
                return [json.dumps(origin.calls()).encode()]
            case "GET", "/client":  # calls of models that the app made
                start_response("200 OK", [("Content-Type", "application/json")])
                return [json.dumps({"model_calls": origin.model_calls}).encode()]
            case "PUT", "/faults":
                faults.set(urllib.parse.parse_qs(environ["QUERY_STRING"]).get("name", []))
                start_response("204 No Content", [])
                return []
            case _:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"here are /metrics, /origin and /client\n"]

    host, port = listener.getsockname()
    server = _Server((host, port), _Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener  # opened by the parent, which therefore knows the port before we run
    server.server_name, server.server_port = host, port
    server.setup_environ()
    server.set_app(app)
    threading.Thread(target=server.serve_forever, args=(0.1,), name="internal", daemon=True).start()
