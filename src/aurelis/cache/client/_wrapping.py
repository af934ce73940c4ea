"""Finding the clients of the HTTP library inside of an SDK's client."""

from __future__ import annotations

from typing import Any, Final

_INNER: Final = (
    *("_client", "client", "_async_client", "async_client", "_http_client"),
    "sdk_configuration",  # Mistral
    *("_client_wrapper", "httpx_client"),  # Cohere
    *("root_client", "root_async_client"),  # LangChain
)
# Not Google's and Pydantic AI's: they replace their clients by new ones, which would have no cache.
_DEPTH: Final = 4


def find_clients(client: object, kinds: tuple[type, ...]) -> list[Any]:
    """The clients of the HTTP library that an SDK's client makes its requests with; it may be one itself.

    Those nearest to it count: an SDK with an interface for each mode has two.

    Args:
        kinds: the classes of the library's clients.

    Raises:
        TypeError: there is none.
    """
    level: list[object] = [client]
    for _ in range(_DEPTH):
        if found := [one for one in level if isinstance(one, kinds)]:
            return list({id(one): one for one in found}.values())
        # Only what is there: reading an attribute may make a client.
        level = [inner for one in level for name in _INNER if (inner := _attributes(one).get(name)) is not None]
    library = kinds[0].__module__.partition(".")[0]
    raise TypeError(
        f"wrap() found no client of {library} in {type(client).__name__}: "
        f"give it a {library}.Client(transport=CacheTransport()), or wrap that client"
    )


def _attributes(value: object) -> dict[str, Any]:
    found: dict[str, Any] = getattr(value, "__dict__", {})
    return found
