"""Reads the URL that says which Redis there is: one server, one behind sentinels, or a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from .exceptions import ConfigurationError

Kind = Literal["server", "socket", "sentinel", "cluster"]

_KINDS: Final[dict[str, Kind]] = {
    "redis": "server",
    "rediss": "server",
    "unix": "socket",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
_PORTS: Final[dict[Kind, int]] = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_EXAMPLES: Final[dict[Kind, str]] = {
    "server": "redis://127.0.0.1:6379/0",
    "socket": "unix:///run/redis.sock",
    "sentinel": "redis+sentinel://host1:26379,host2:26379/mymaster/0",
    "cluster": "redis+cluster://host1:6379,host2:6379",
}


@dataclass(frozen=True, slots=True)
class RedisURL:
    """What a URL says, before redis-py reads its options.

    Attributes:
        tls: connections are encrypted, those to sentinels too.
        servers: host and port of the server, the sentinels, or some nodes of the cluster; none for a socket.
        path: of the socket.
        service: the name by which the sentinels know the servers.
        database: `None`: not given.
        username: percent-decoded, as the password; `None`: not given.
        query: the options, undecoded. May hold passwords.
    """

    kind: Kind
    tls: bool
    servers: tuple[tuple[str, int], ...]
    path: str
    service: str
    database: int | None
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    query: str = field(repr=False)

    @property
    def identity(self) -> str:
        """Which database it is, without credentials."""
        database = dict(parse_qsl(self.query)).get("db") or self.database or 0
        return f"{self.kind} {self.servers} {self.path} {self.service} {database}"


def parse_redis_url(url: object) -> RedisURL:
    """Read a URL; nothing is looked up or connected.

    Args:
        url: `redis://`, `rediss://`, `unix://`, `redis+sentinel://h1:p1,h2:p2/SERVICE/DB` or
            `redis+cluster://h1:p1,h2:p2`; the latter two with `rediss` for TLS.

    Raises:
        ConfigurationError: it is none of these. The text has nothing of the URL but its scheme: it may hold a password.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"redis_url must be a str, not {type(url).__name__}")
    if any(character <= " " for character in url):
        raise ConfigurationError("redis_url contains a space or a control character; perhaps a line end at its end")
    scheme, found, rest = url.partition("://")
    kind = _KINDS.get(scheme.lower())
    if kind is None:
        # Without a scheme, what stands before the first colon may be anything.
        named = repr(scheme if found and scheme.replace("+", "").isalpha() else "")
        raise ConfigurationError(
            f"redis_url has the scheme {named}; accepted are " + ", ".join(f"{scheme}://" for scheme in _KINDS)
        )
    location = rest
    for mark in "/?#":
        location = location.partition(mark)[0]
    user, _, hosts = location.rpartition("@")
    username, _, password = user.partition(":")
    try:
        tail = urlsplit("//host" + rest[len(location) :])
        servers = () if kind == "socket" else tuple(_server(host, _PORTS[kind]) for host in hosts.split(","))
    except ValueError as error:
        kind_of_error = type(error).__name__
    else:
        kind_of_error = ""
    if kind_of_error:  # not from within: the text of that error repeats the part that is wrong
        raise ConfigurationError(
            f"redis_url cannot be parsed ({kind_of_error}): write redis://user:password@host:port/0, special "
            "characters of the password percent-encoded"
        )
    if any(not host or port == 0 for host, port in servers):
        raise ConfigurationError(f"redis_url needs a host, and no port 0, for instance {_EXAMPLES[kind]}")
    if kind == "server" and len(servers) > 1:
        raise ConfigurationError(
            "redis_url needs a host, not several; for several write redis+sentinel:// or redis+cluster://"
        )
    if kind == "socket" and not tail.path:
        raise ConfigurationError(f"redis_url: unix:// needs the path of the socket, for instance {_EXAMPLES[kind]}")
    service, database = _path(kind, tail.path)
    return RedisURL(
        kind,
        scheme.lower().startswith("rediss"),
        servers,
        unquote(tail.path) if kind == "socket" else "",
        service,
        database,
        unquote(username) or None,
        unquote(password) or None,
        tail.query,
    )


def _server(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return unquote(parts.hostname or ""), default if parts.port is None else parts.port


def _path(kind: Kind, path: str) -> tuple[str, int | None]:
    """The service and the database."""
    if kind == "socket":
        return "", None
    words = path.strip("/")
    service = ""
    if kind == "sentinel":
        service, _, words = words.partition("/")
        if not service:
            raise ConfigurationError(
                f"redis_url: sentinels need the name of the service after the hosts, for instance {_EXAMPLES[kind]}"
            )
    if words and not (words.isascii() and words.isdecimal()):
        raise ConfigurationError("redis_url: the path names the database and must be a number")
    if kind == "cluster" and words.strip("0"):
        raise ConfigurationError(
            f"redis_url: a cluster has no databases; leave the path out, for instance {_EXAMPLES[kind]}"
        )
    return unquote(service), int(words) if words else None
