"""What a URL of Redis says, and what an error says about one that says nothing."""

import pytest

from aurelis.cache._redis_url import parse_redis_url
from aurelis.cache.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("url", "kind", "tls", "servers"),
    [
        ("redis://localhost", "server", False, (("localhost", 6379),)),
        ("REDISS://cache.example:6380/2", "server", True, (("cache.example", 6380),)),
        ("redis://user:p%40ss@[::1]:6379/0", "server", False, (("::1", 6379),)),
        ("unix:///run/redis.sock?db=1", "socket", False, ()),
        ("redis+sentinel://a,b:1,[::1]:2/main", "sentinel", False, (("a", 26379), ("b", 1), ("::1", 2))),
        ("rediss+sentinel://a/main/3", "sentinel", True, (("a", 26379),)),
        ("redis+cluster://[::1]:1,[::2]", "cluster", False, (("::1", 1), ("::2", 6379))),
        ("rediss+cluster://a:1/0", "cluster", True, (("a", 1),)),
    ],
)
def test_the_scheme_names_the_topology(url: str, kind: str, tls: bool, servers: tuple[tuple[str, int], ...]) -> None:
    parsed = parse_redis_url(url)
    assert (parsed.kind, parsed.tls, parsed.servers) == (kind, tls, servers)


def test_the_path_names_service_and_database() -> None:
    parsed = parse_redis_url("redis+sentinel://a/my%20main/3")
    assert (parsed.service, parsed.database) == ("my main", 3)
    assert parse_redis_url("redis+sentinel://a/main").database is None
    assert parse_redis_url("redis://a/15").database == 15
    assert parse_redis_url("unix:///run/my%20redis.sock").path == "/run/my redis.sock"


@pytest.mark.parametrize(
    ("url", "username", "password"),
    [
        ("redis://a", None, None),
        ("redis://:p%40%3A%2Fss@a", None, "p@:/ss"),
        ("redis+cluster://user:p:w@a,b", "user", "p:w"),
        ("redis+sentinel://us%C3%A9r@a/main", "usér", None),
        ("redis://user:p@ss@a", "user", "p@ss"),
    ],
)
def test_user_and_password_are_percent_decoded(url: str, username: str | None, password: str | None) -> None:
    parsed = parse_redis_url(url)
    assert (parsed.username, parsed.password) == (username, password)
    assert password is None or password not in repr(parsed)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (7, "must be a str, not int"),
        ("redis://a/0\n", "a space or a control character"),
        ("redis+tls://a", r"scheme 'redis\+tls'; accepted are redis://, .*rediss\+cluster://"),
        ("secret+s://a", "accepted are"),
        ("se:cret@a:1", "scheme ''"),
        ("redis://a,b/0", r"needs a host, not several; .*redis\+sentinel:// or redis\+cluster://"),
        ("redis+cluster://", r"needs a host, .* for instance redis\+cluster://"),
        ("redis+cluster://a,", "needs a host"),
        ("redis+cluster://a:0", "no port 0"),
        ("redis+cluster://a:70000", "cannot be parsed"),
        ("redis+cluster://a:x,b", "cannot be parsed"),
        ("redis+cluster://a,b/1", "a cluster has no databases; leave the path out"),
        ("redis+sentinel://a:0/main", "no port 0"),
        ("redis+sentinel://a", "need the name of the service after the hosts, for instance .*/mymaster/0"),
        ("redis+sentinel://a/", "need the name of the service"),
        ("redis+sentinel://a/main/first", "must be a number"),
        ("unix://", "unix:// needs the path"),
    ],
)
def test_what_is_no_url_of_redis_is_refused_and_the_error_says_what_to_write(url: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_redis_url(url)
    assert "cret" not in str(caught.value).replace("secret+s", "")
    assert caught.value.__context__ is None  # whose text would repeat a part of it
