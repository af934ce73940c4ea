"""Finding the client of the HTTP library inside of an SDK's client."""

from __future__ import annotations

from typing import Any, Final

_INNER: Final = ("_client", "client", "_async_client", "_http_client")
_DEPTH: Final = 3


def find_client(client: object, kinds: tuple[type, ...]) -> Any:
    """The client of the HTTP library that an SDK's client makes its requests with, which may be itself.

    Args:
        kinds: the classes of the library's clients.

    Raises:
        TypeError: there is none.
    """
    level: list[object] = [client]
    for _ in range(_DEPTH):
        for candidate in level:
            if isinstance(candidate, kinds):
                return candidate
        # Only what is there: reading an attribute may make a client.
        level = [found for one in level for name in _INNER if (found := _attributes(one).get(name)) is not None]
    library = kinds[0].__module__.partition(".")[0]
    raise TypeError(
        f"wrap() found no client of {library} in {type(client).__name__}: "
        f"give its http_client={library}.Client(transport=CacheTransport()), or wrap that client"
    )


def _attributes(value: object) -> dict[str, Any]:
    found: dict[str, Any] = getattr(value, "__dict__", {})
    return found
