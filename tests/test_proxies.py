"""The proxy passes, delays, drops, holds, refuses, resets and cuts what goes between a client and a real Redis."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis

from tests.managers import eventually_blocking
from tests.proxies import Cut, Direction, Drop, Fault, Hang, Latency, Pass, Proxy, Refuse, Throttle
from tests.servers import HOST, ServerProcess, redis_command

SOON = 0.3
"""Seconds in which something that does not happen has not happened."""


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    """A running proxy in front of an empty Redis."""
    with Proxy(redis_url) as running:
        yield running
    assert running.connections == 0


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Callable[[], socket.socket]]:
    """A function that connects through the proxy."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection((HOST, proxy.port), timeout=5))


def ask(connection: socket.socket, command: str = "PING") -> bytes:
    """Sends one inline command; returns what comes back first."""
    connection.sendall(f"{command}\r\n".encode())
    return connection.recv(65536)


def duration(connection: socket.socket) -> float:
    """Returns how long one command takes, seconds."""
    begin = time.monotonic()
    assert ask(connection) == b"+PONG\r\n"
    return time.monotonic() - begin


def read_to_end(connection: socket.socket) -> bytes:
    """Returns all that comes before the end of the stream."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


# --- passing


def test_url_leads_through_the_proxy_and_keeps_the_rest() -> None:
    proxy = Proxy("rediss://user:p%40ss@redis.example:6379/3?protocol=3")
    with pytest.raises(AssertionError, match="start the proxy first"):
        _ = proxy.url
    with proxy:
        assert proxy.url == f"rediss://user:p%40ss@{HOST}:{proxy.port}/3?protocol=3"


def test_clients_see_no_difference(proxy: Proxy) -> None:
    large = bytes(range(256)) * 20_000

    def use(number: int) -> bytes:
        with redis.Redis.from_url(proxy.url) as client:
            client.set(f"key {number}", large)
            found = client.get(f"key {number}")
            assert isinstance(found, bytes)
            return found

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(8))) == [large] * 8
    assert proxy.accepted == 8
    eventually_blocking(lambda: proxy.connections == 0)


async def test_an_asynchronous_client_may_share_the_thread_of_the_test(proxy: Proxy) -> None:
    async with AsyncRedis.from_url(proxy.url) as client:
        assert await client.set("key", "value")
        assert await client.get("key") == b"value"


def test_the_end_of_the_stream_passes(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(b"PING\r\n")
    connection.shutdown(socket.SHUT_WR)
    assert read_to_end(connection) == b"+PONG\r\n"


def test_a_server_that_is_away_looks_like_a_reset(own_redis: ServerProcess) -> None:
    with Proxy(own_redis.url) as proxy:

        def ask_anew() -> bytes:
            with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
                return ask(connection)

        own_redis.stop()
        with pytest.raises(ConnectionError):
            ask_anew()
        own_redis.start()
        assert ask_anew() == b"+PONG\r\n"


# --- slow


def test_latency_delays_each_way_and_does_not_limit_throughput(
    proxy: Proxy, connect: Callable[[], socket.socket]
) -> None:
    connection = connect()
    proxy.apply(Latency(0.1, jitter=0.05))
    assert duration(connection) >= 0.2
    begin = time.monotonic()
    for _ in range(10):  # all under way together
        connection.sendall(b"PING\r\n")
        time.sleep(0.01)
    received = b""
    while len(received) < 70:
        received += connection.recv(65536)
    assert 0.2 <= time.monotonic() - begin < 2.0  # one after the other would take longer
    assert received == b"+PONG\r\n" * 10
    proxy.apply(Pass())
    assert min(duration(connection) for _ in range(5)) < 0.2


def test_throttling_limits_what_passes_per_second(proxy: Proxy, connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    ask(connection, f"SET key {'x' * 20_000}")
    with proxy.during(Throttle(40_000)):
        begin = time.monotonic()
        connection.sendall(b"GET key\r\nQUIT\r\n")
        assert len(read_to_end(connection)) > 20_000
        assert 0.4 <= time.monotonic() - begin < 5.0


# --- silent


def test_dropped_requests_never_reach_the_server(
    proxy: Proxy, connect: Callable[[], socket.socket], shared_redis: ServerProcess
) -> None:
    connection = connect()
    assert ask(connection) == b"+PONG\r\n"
    proxy.apply(Drop("to_server"))
    connection.settimeout(SOON)
    with pytest.raises(TimeoutError):
        ask(connection, "SET key value")
    assert redis_command(shared_redis.port, "EXISTS key").startswith(b":0")


def test_dropped_answers_leave_the_server_changed(
    proxy: Proxy, connect: Callable[[], socket.socket], shared_redis: ServerProcess
) -> None:
    connection = connect()
    assert ask(connection) == b"+PONG\r\n"
    proxy.apply(Drop("to_client"))
    connection.settimeout(SOON)
    with pytest.raises(TimeoutError):
        ask(connection, "SET key value")
    assert redis_command(shared_redis.port, "EXISTS key").startswith(b":1")


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
def test_half_open_means_that_not_even_the_end_passes(
    proxy: Proxy, connect: Callable[[], socket.socket], shared_redis: ServerProcess, direction: Direction
) -> None:
    connection = connect()
    assert ask(connection, "CLIENT SETNAME half-open") == b"+OK\r\n"
    proxy.apply(Drop(direction))
    if direction == "to_server":
        connection.close()
        time.sleep(SOON)
        assert b"name=half-open" in redis_command(shared_redis.port, "CLIENT LIST")
    else:
        redis_command(shared_redis.port, "CLIENT KILL TYPE normal")
        connection.settimeout(SOON)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_hanging_accepts_and_holds_what_passes_afterwards(proxy: Proxy, connect: Callable[[], socket.socket]) -> None:
    existing = connect()
    assert ask(existing) == b"+PONG\r\n"
    with proxy.during(Hang()):
        for connection in (existing, connect()):
            connection.settimeout(SOON)
            with pytest.raises(TimeoutError):
                ask(connection)
            connection.settimeout(5)
    assert existing.recv(100) == b"+PONG\r\n"
    assert connection.recv(100) == b"+PONG\r\n"


# --- broken


def test_refusing_closes_the_port_and_spares_connections(proxy: Proxy, connect: Callable[[], socket.socket]) -> None:
    existing = connect()
    port = proxy.port
    for _ in range(3):
        with proxy.during(Refuse()):
            with pytest.raises(ConnectionRefusedError):
                connect()
            assert ask(existing) == b"+PONG\r\n"
        assert ask(connect()) == b"+PONG\r\n"
    assert proxy.port == port


def test_reset_ends_connections_that_exist(proxy: Proxy, connect: Callable[[], socket.socket]) -> None:
    existing = [connect() for _ in range(3)]
    for connection in existing:
        assert ask(connection) == b"+PONG\r\n"
    proxy.reset()
    assert proxy.connections == 0
    for connection in existing:
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert ask(connect()) == b"+PONG\r\n"


def test_reset_reaches_one_that_hangs(proxy: Proxy, connect: Callable[[], socket.socket]) -> None:
    proxy.apply(Hang())
    connection = connect()
    connection.sendall(b"PING\r\n")
    eventually_blocking(lambda: proxy.connections == 1)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        connection.recv(1)


def test_cutting_ends_in_the_middle_of_an_answer(proxy: Proxy, connect: Callable[[], socket.socket]) -> None:
    first, second, third = connect(), connect(), connect()
    ask(first, "SET key 0123456789")
    proxy.apply(Cut(after=8))
    first.sendall(b"GET key\r\n")
    assert read_to_end(first) == b"$10\r\n012"
    proxy.apply(Cut(after=10, reset=True))
    assert ask(second) == b"+PONG\r\n"  # 7 of the 10
    with contextlib.suppress(ConnectionResetError):
        assert ask(second) == b"+PO"
    with pytest.raises(ConnectionResetError):
        second.recv(1)
    proxy.apply(Cut(after=5, direction="to_server"))
    third.sendall(b"PING\r\n")
    assert read_to_end(third) == b""


def test_a_client_gets_over_each_fault(proxy: Proxy) -> None:
    faults: list[Fault] = [Drop("to_server"), Drop("to_client"), Hang(), Refuse(), Cut(after=3), Throttle(10)]
    with redis.Redis.from_url(proxy.url, socket_timeout=0.1, retry=None) as client:
        for fault in faults:
            assert client.ping()
            client.close()  # a connection that is refused must be a new one
            with proxy.during(fault), pytest.raises((redis.ConnectionError, redis.TimeoutError)):
                client.get("key")
            proxy.reset()


def test_closing_ends_the_thread_and_frees_the_port(redis_url: str) -> None:
    threads = threading.active_count()
    proxy = Proxy(redis_url).start()
    connection = socket.create_connection((HOST, proxy.port), timeout=5)
    assert ask(connection) == b"+PONG\r\n"
    proxy.apply(Hang())
    proxy.close()
    proxy.close()
    assert threading.active_count() == threads
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, proxy.port), timeout=5)
