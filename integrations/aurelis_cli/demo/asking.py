"""Asks the processes of the demo, which all are on this machine."""

from __future__ import annotations

import http.client
from typing import Final

from .settings import HOST

_PATIENCE: Final = 5.0


def ask(port: int, path: str, *, method: str = "GET", timeout: float = _PATIENCE) -> bytes:
    """The body of a response with a status of success.

    Raises:
        OSError: There was none, or one with another status.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        if not 200 <= response.status < 300:
            raise ConnectionError(f"{path}: status {response.status}")
        return body
    except http.client.HTTPException as error:
        raise ConnectionError(f"{path}: {type(error).__name__}") from error
    finally:
        connection.close()
