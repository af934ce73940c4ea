"""Fixtures for real servers, and the rule that nothing is skipped unnoticed."""

import contextlib
import gc
import os
import ssl
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import servers
from tests.servers import MISSING_SERVER, ServerProcess

ROOT = Path(__file__).resolve().parent.parent
MISSING_SHARED = "shared folder is missing: "  # begins the reason of the one skip that is allowed everywhere

# Other processes of a test run make the time of one example meaningless.
settings.register_profile("aurelis", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("aurelis")


# --- servers


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that returns a free loopback port."""
    return servers.free_port


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ServerProcess]]:
    """A function that starts one more Redis, with options of its own; all of them end with the session."""
    with contextlib.ExitStack() as stack:

        def start(**options: str) -> ServerProcess:
            server = servers.redis(tmp_path_factory.mktemp("redis"), **options)
            stack.callback(server.stop)
            server.start()
            return server

        yield start


@pytest.fixture(scope="session")
def shared_redis(redis_server: Callable[..., ServerProcess]) -> ServerProcess:
    """The Redis that the tests of one worker share; take `redis_url`, which empties it first."""
    return redis_server()


@pytest.fixture
def redis_url(shared_redis: ServerProcess) -> str:
    """The URL of an empty Redis that must not be stopped."""
    emptied(shared_redis)
    return shared_redis.url


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[ServerProcess]:
    """A running Redis of the test's own, to be stopped, started, paused and resumed."""
    server = servers.redis(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> servers.Certificates:
    """Certificates for a server on this machine, of an authority that nobody knows."""
    return servers.certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def tls_redis(tmp_path_factory: pytest.TempPathFactory, certificates: servers.Certificates) -> Iterator[ServerProcess]:
    """A Redis that speaks nothing but TLS; it must not be stopped."""
    server = servers.tls_redis(tmp_path_factory.mktemp("tls"), certificates)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def socket_redis(redis_server: Callable[..., ServerProcess]) -> Iterator[tuple[Path, ServerProcess]]:
    """The socket of a Redis, and the Redis, which must not be stopped."""
    # The path must be shorter than those of pytest may be.
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        path = Path(folder) / "socket"
        yield path, redis_server(unixsocket=str(path))


@pytest.fixture(scope="session")
def shared_sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.SentinelSetup]:
    """A primary, a replica and sentinels that the tests of one worker share: what is stopped must be started again."""
    setup = servers.SentinelSetup(tmp_path_factory.mktemp("sentinels"))
    try:
        setup.start()
        yield setup
    finally:
        setup.stop()


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.ClusterSetup]:
    """A cluster of three primaries that the tests of one worker share; its nodes must not be stopped."""
    setup = servers.ClusterSetup(tmp_path_factory.mktemp("cluster"))
    try:
        setup.start()
        yield setup
    finally:
        setup.stop()


TOPOLOGIES = ["server", "socket", "tls", "sentinel", "cluster"]


@pytest.fixture
def topology_url(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """A function that returns the URL of an empty Redis of one of `TOPOLOGIES`, which must not be stopped."""

    def url_of(topology: str) -> str:
        match topology:
            case "server":
                url: str = request.getfixturevalue("redis_url")
                return url
            case "socket":
                path, server = request.getfixturevalue("socket_redis")
                emptied(server)
                return f"unix://{path}"
            case "tls":
                tls: ServerProcess = request.getfixturevalue("tls_redis")
                authority = request.getfixturevalue("certificates").authority
                emptied(tls, ssl.create_default_context(cafile=authority))
                return tls.url
            case "sentinel":
                sentinels: servers.SentinelSetup = request.getfixturevalue("shared_sentinels")
                emptied(sentinels.primary)
                return sentinels.url
            case _:
                cluster: servers.ClusterSetup = request.getfixturevalue("shared_cluster")
                for node in cluster.primaries:
                    emptied(node)
                return cluster.url

    return url_of


def emptied(server: ServerProcess, tls: ssl.SSLContext | None = None) -> None:
    """Forgets all keys of a server."""
    assert servers.redis_command(server.port, "FLUSHALL", tls).startswith(b"+OK")


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[servers.ClusterSetup]:
    """A cluster of the test's own, each primary with a replica."""
    setup = servers.ClusterSetup(tmp_path, replicas=1)
    try:
        setup.start()
        yield setup
    finally:
        setup.stop()


@pytest.fixture
def prometheus_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Sequence[str | Path]], ServerProcess]]:
    """A function that starts a Prometheus for the given files of targets; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(targets: Sequence[str | Path]) -> ServerProcess:
            server = servers.prometheus(tmp_path_factory.mktemp("prometheus"), targets)
            stack.callback(server.stop)
            server.start()
            return server

        yield start


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with reference data beside the repository, or named by AURELIS_TESTS_SHARED."""
    folder = Path(os.environ.get("AURELIS_TESTS_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"{MISSING_SHARED}{folder}; AURELIS_TESTS_SHARED may name another")
    return folder


# --- skipped tests


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Returns the words given to the skip."""
    # The report of a skip has (path, line, "Skipped: reason"), which is a list if it came from a worker.
    words = report.longrepr[2] if isinstance(report.longrepr, tuple | list) else str(report.longrepr)
    return words.removeprefix("Skipped: ")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Names what was skipped for want of a server; with CI=true, any skipped test fails the run."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of xdist: its controller has all reports
        return
    skipped = [(report.nodeid, skip_reason(report)) for report in reporter.stats.get("skipped", [])]

    not_allowed = [test for test, reason in skipped if not reason.startswith(MISSING_SHARED)]
    if not_allowed and os.environ.get("CI", "").lower() == "true":
        reporter.write_line(f"CI=true, and these tests were skipped: {', '.join(not_allowed)}", red=True)
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    by_server: dict[str, list[str]] = {}
    for test, reason in skipped:
        if reason.startswith(MISSING_SERVER):
            by_server.setdefault(reason.removeprefix(MISSING_SERVER), []).append(test)
    named = "; ".join(f"{server}: {', '.join(tests)}" for server, tests in sorted(by_server.items()))
    reporter.write_line(f"Skipped for want of a server: {named or 'none'}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that count come first: a process reports 2 000 series at most, and every cache adds some."""
    items.sort(key=lambda item: "tests/telemetry/" not in item.nodeid)


def pytest_collection_finish() -> None:
    """All modules and tests live to the end: a garbage collector that looked at them would pause tests for a second."""
    gc.freeze()
