"""Real servers for tests: each is a process of its own on a free loopback port, ended by its PID."""

import contextlib
import dataclasses
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest

HOST = "127.0.0.1"
READY_WITHIN = 30.0  # seconds
MISSING_SERVER = "server is missing: "  # begins the reason of a skip, the server's name follows

# Never through a proxy that the environment names: everything here is on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """Returns a TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


class ServerProcess:
    """One server, started and stopped as often as a test likes; it keeps its port.

    Args:
        program: name of the executable; the test is skipped where it is missing.
        arguments: makes the command's arguments for a port.
        is_ready: says whether the process with this port and PID answers.
        url: with `{port}` in it.
        folder: where the log goes.
    """

    def __init__(
        self,
        program: str,
        arguments: Callable[[int], Sequence[str]],
        is_ready: Callable[[int, int], bool],
        url: str,
        folder: Path,
    ) -> None:
        self._program = program
        self._arguments = arguments
        self._is_ready = is_ready
        self._url = url
        self._log = folder / f"{program}.log"
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port, known from the first start on."""
        assert self._port is not None, "start the server first"
        return self._port

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return self._url.format(port=self.port)

    @property
    def pid(self) -> int:
        """The process now running."""
        assert self._process is not None, "the server is stopped"
        return self._process.pid

    def start(self) -> None:
        """Starts the process and returns when it answers."""
        assert self._process is None, "the server runs already"
        executable = shutil.which(self._program)
        if executable is None:
            pytest.skip(f"{MISSING_SERVER}{self._program}")
        # Between finding a port and listening on it, somebody else may take it: then the process ends, and
        # the next attempt finds another. A restarted server must have the port that its clients know.
        for _ in range(5):
            port = self._port or free_port()
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    [executable, *self._arguments(port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            if self._wait_until_ready(process, port):
                self._process, self._port = process, port
                return
            _end(process)
        last_words = self._log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self._program} does not start:\n{last_words}")

    def stop(self) -> None:
        """Ends the process, also a paused one; does nothing if it is stopped already."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def pause(self) -> None:
        """Makes the server hang: it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused server go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is stopped"
        self._process.send_signal(number)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], port: int) -> bool:
        deadline = time.monotonic() + READY_WITHIN
        while process.poll() is None and time.monotonic() < deadline:
            if self._is_ready(port, process.pid):
                return True
            time.sleep(0.02)
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)  # a stopped process would not see the next signal
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- Redis


def redis(folder: Path, **options: str) -> ServerProcess:
    """Returns a Redis that keeps nothing on disk; it is not started.

    Args:
        folder: for its log and whatever it writes.
        options: of its configuration, with `_` for `-`; `{port}` stands for its port.
    """
    url = f"redis://{HOST}:{{port}}/0"
    return ServerProcess("redis-server", _redis_arguments(folder, options), _is_redis, url, folder)


def tls_redis(folder: Path, certificates: "Certificates") -> ServerProcess:
    """Returns a Redis that speaks nothing but TLS; it is not started."""
    options = {
        "port": "0",
        "tls_port": "{port}",
        "tls_cert_file": str(certificates.server),
        "tls_key_file": str(certificates.key),
        "tls_ca_cert_file": str(certificates.authority),
        "tls_auth_clients": "no",
    }
    url = f"rediss://{HOST}:{{port}}/0?ssl_ca_certs={certificates.authority}"

    def is_ready(port: int, pid: int) -> bool:
        return _is_redis(port, pid, ssl.create_default_context(cafile=certificates.authority))

    return ServerProcess("redis-server", _redis_arguments(folder, options), is_ready, url, folder)


def _redis_arguments(folder: Path, options: Mapping[str, str]) -> Callable[[int], list[str]]:
    def arguments(port: int) -> list[str]:
        basic = {"port": "{port}", "bind": HOST, "save": "", "appendonly": "no", "dir": str(folder)}
        words = {**basic, **options}.items()
        return [text for name, value in words for text in (f"--{name.replace('_', '-')}", value.format(port=port))]

    return arguments


def _is_redis(port: int, pid: int, tls: ssl.SSLContext | None = None) -> bool:
    # Another Redis may have taken the port; the PID tells.
    return f"process_id:{pid}\r\n".encode() in redis_command(port, "INFO server", tls)


def redis_command(port: int, command: str, tls: ssl.SSLContext | None = None) -> bytes:
    """Sends one inline command without any client library; returns the answer, empty if there is none."""
    try:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((HOST, port), timeout=5))
            if tls is not None:
                connection = stack.enter_context(tls.wrap_socket(connection, server_hostname=HOST))
            connection.sendall(f"{command}\r\n".encode())
            return _answer(stack.enter_context(connection.makefile("rb")))
    except OSError:
        return b""


def connections(server: ServerProcess) -> int:
    """How many connections a Redis has, besides the one that asks."""
    return redis_command(server.port, "CLIENT LIST").count(b"id=") - 1


def keys(server: ServerProcess, pattern: str) -> bytes:
    """Which keys a Redis has, as it answers."""
    return redis_command(server.port, f"KEYS {pattern}")


def _answer(stream: IO[bytes]) -> bytes:
    """Reads one answer as it comes."""
    line = stream.readline()
    size = int(line[1:]) if line[:1] in (b"$", b"*") else -1
    if size < 0:
        return line
    return line + (stream.read(size + 2) if line[:1] == b"$" else b"".join(_answer(stream) for _ in range(size)))


def until(condition: Callable[[], object], what: str) -> None:
    """Waits until something is true of servers."""
    deadline = time.monotonic() + READY_WITHIN
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"it did not happen: {what}")
        time.sleep(0.02)


@dataclasses.dataclass(frozen=True)
class Certificates:
    """Files: of an authority, and a server's for `HOST` that it signed."""

    authority: Path
    server: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """Makes an authority that nobody knows, and a server's certificate."""
    made = Certificates(folder / "authority.pem", folder / "server.pem", folder / "server.key")
    secret, request, extensions = folder / "authority.key", folder / "server.csr", folder / "extensions"
    # From Python 3.13 on a certificate has to say all that RFC 5280 wants of it.
    extensions.write_text(f"subjectAltName=IP:{HOST}\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
    may_sign = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    signed_by: list[str | Path] = ["-CA", made.authority, "-CAkey", secret, "-CAcreateserial", "-extfile", extensions]
    commands: list[list[str | Path]] = [
        ["req", "-x509", *new_key, *may_sign, "-keyout", secret, "-out", made.authority, "-subj", "/CN=authority"],
        ["req", *new_key, "-keyout", made.key, "-out", request, "-subj", "/CN=server"],
        ["x509", "-req", "-in", request, "-out", made.server, "-days", "2", *signed_by],
    ]
    executable = shutil.which("openssl")
    if executable is None:
        pytest.skip(f"{MISSING_SERVER}openssl")
    for command in commands:
        subprocess.run([executable, *command], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return made


# --- Redis Sentinel


class SentinelSetup:
    """Two servers, of which one is the primary, and three sentinels that agree on which within seconds."""

    service = "main"

    def __init__(self, folder: Path) -> None:
        def inside(name: str) -> Path:
            (folder / name).mkdir()
            return folder / name

        # What a replica lost is copied at once, not after five seconds.
        self.servers = [redis(inside(f"server{number}"), repl_diskless_sync_delay="0") for number in range(2)]
        self.sentinels = [self._sentinel(inside(f"sentinel{number}")) for number in range(3)]

    @property
    def url(self) -> str:
        """Where clients connect to."""
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}/0"

    @property
    def primary(self) -> ServerProcess:
        """The server that says that it is the primary, and which the other one follows."""
        found: list[ServerProcess] = []

        def one_leads() -> bool:
            found[:] = [server for server in self.servers if b"role:master" in self._replication(server)]
            return len(found) == 1

        until(one_leads, "one primary")
        return found[0]

    def start(self) -> None:
        """Starts them all, and returns when the sentinels could replace the primary."""
        primary, replica = self.servers
        primary.start()
        replica.start()
        assert redis_command(replica.port, f"REPLICAOF {HOST} {primary.port}").startswith(b"+OK")
        self.until_replicated()
        for sentinel in self.sentinels:
            sentinel.start()
        until(lambda: all(self._knows_all(sentinel) for sentinel in self.sentinels), "sentinels know each other")

    def stop(self) -> None:
        """Ends them all."""
        for server in [*self.sentinels, *self.servers]:
            server.stop()

    def until_replicated(self) -> None:
        """Waits until one server follows the other."""
        until(lambda: any(b"master_link_status:up" in self._replication(one) for one in self.servers), "a replica")

    def _sentinel(self, folder: Path) -> ServerProcess:
        # A sentinel rewrites its configuration, and wants it in a file that is its own.
        config = folder / "sentinel.conf"

        def arguments(port: int) -> list[str]:
            if not config.exists():
                service = self.service
                lines = [
                    f"sentinel monitor {service} {HOST} {self.servers[0].port} 2",
                    f"sentinel down-after-milliseconds {service} 500",
                    f"sentinel failover-timeout {service} 3000",
                ]
                config.write_text("\n".join(lines) + "\n")
            return [str(config), "--sentinel", "--port", str(port), "--bind", HOST, "--dir", str(folder)]

        return ServerProcess("redis-server", arguments, _is_redis, f"redis://{HOST}:{{port}}", folder)

    def _knows_all(self, sentinel: ServerProcess) -> bool:
        # name=main,status=ok,address=127.0.0.1:6379,slaves=1,sentinels=3
        status = redis_command(sentinel.port, "INFO sentinel")
        return b"status=ok" in status and b"slaves=1,sentinels=3" in status

    def _replication(self, server: ServerProcess) -> bytes:
        return redis_command(server.port, "INFO replication")


# --- Redis Cluster

_CLUSTER_SLOTS = 16_384


class ClusterSetup:
    """A cluster of primaries, each with some replicas."""

    def __init__(self, folder: Path, *, primaries: int = 3, replicas: int = 0) -> None:
        self._replicas = replicas
        self.nodes: list[ServerProcess] = []
        self._bus_ports: list[int] = []
        for number in range(primaries * (1 + replicas)):
            own = folder / f"node{number}"
            own.mkdir()
            # Commonly ten thousand more than the port, which is no port then.
            bus_port = free_port()
            self._bus_ports.append(bus_port)
            options = {
                "cluster_enabled": "yes",
                "cluster_port": str(bus_port),
                "cluster_node_timeout": "1000",
                "repl_diskless_sync_delay": "0",
            }
            self.nodes.append(redis(own, **options))
        self.primaries = self.nodes[:primaries]

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.primaries)

    def start(self) -> None:
        """Starts the nodes, and returns when they agree on who has which slots."""
        for node in self.nodes:
            node.start()
        first, *others = zip(self.nodes, self._bus_ports, strict=True)
        for number, node in enumerate(self.nodes):
            self._command(node, f"CLUSTER SET-CONFIG-EPOCH {number + 1}")
        count = len(self.primaries)
        for number, node in enumerate(self.primaries):
            begin, end = _CLUSTER_SLOTS * number // count, _CLUSTER_SLOTS * (number + 1) // count - 1
            self._command(node, f"CLUSTER ADDSLOTSRANGE {begin} {end}")
        for node, bus_port in others:
            self._command(first[0], f"CLUSTER MEET {HOST} {node.port} {bus_port}")
        until(lambda: all(self._sees(node, len(self.nodes)) for node in self.nodes), "nodes know each other")
        for number, node in enumerate(self.nodes[count:]):
            self._command(node, f"CLUSTER REPLICATE {self.id_of(self.primaries[number % count])}")
        until(lambda: all(self.is_well(node) for node in self.nodes), "a cluster")

    def stop(self) -> None:
        """Ends all nodes."""
        for node in self.nodes:
            node.stop()

    def id_of(self, node: ServerProcess) -> str:
        """Returns the name that the node has in the cluster."""
        return redis_command(node.port, "CLUSTER MYID").split(b"\r\n")[1].decode()

    def is_well(self, node: ServerProcess) -> bool:
        """Returns whether the node finds all slots served, and each primary followed by its replicas."""
        if b"cluster_state:ok" not in redis_command(node.port, "CLUSTER INFO"):
            return False
        lines = redis_command(node.port, "CLUSTER NODES").decode().splitlines()
        replicas = [line for line in lines if " slave " in line or " myself,slave " in line]
        replication = redis_command(node.port, "INFO replication")
        followed = b"role:slave" not in replication or b"master_link_status:up" in replication
        return len(replicas) == len(self.primaries) * self._replicas and followed

    def owner_of(self, slot: int) -> ServerProcess:
        """Returns the node that has the slot, as a node that runs sees it."""
        found: list[ServerProcess] = []

        def is_owned() -> bool:
            owner = next(self._owners(slot), None)
            found[:] = [node for node in self.nodes if node.port == owner]
            return bool(found)

        until(is_owned, "somebody has the slot")
        return found[0]

    def _owners(self, slot: int) -> Iterator[int]:
        """Its port, as each node sees it."""
        for node in self.nodes:
            for line in redis_command(node.port, "CLUSTER NODES").decode().splitlines():
                fields = line.split()
                if len(fields) > 8 and "fail" not in fields[2] and any(_has(part, slot) for part in fields[8:]):
                    yield int(fields[1].partition("@")[0].rpartition(":")[2])
                    break

    def _epochs(self) -> Iterator[frozenset[tuple[str, str]]]:
        """The nodes and the numbers of their last change, as each node sees them."""
        for node in self.nodes:
            lines = [line.split() for line in redis_command(node.port, "CLUSTER NODES").decode().splitlines()]
            yield frozenset((fields[0], fields[6]) for fields in lines if len(fields) > 7)

    def begin_move(self, slot: int, target: ServerProcess) -> ServerProcess:
        """Lets a slot be on its way; returns the node that has it still. New keys go to the target from now on."""
        source = self.owner_of(slot)
        self._command(target, f"CLUSTER SETSLOT {slot} IMPORTING {self.id_of(source)}")
        self._command(source, f"CLUSTER SETSLOT {slot} MIGRATING {self.id_of(target)}")
        return source

    def move_keys(self, slot: int, source: ServerProcess, target: ServerProcess, count: int = 10_000) -> None:
        """Moves keys of a slot that is on its way."""
        found = redis_command(source.port, f"CLUSTER GETKEYSINSLOT {slot} {count}").split(b"\r\n")[2::2]
        for name in found:
            # As an inline command takes it, whatever bytes it has.
            quoted = "".join(f"\\x{byte:02x}" for byte in name)
            self._command(source, f'MIGRATE {HOST} {target.port} "{quoted}" 0 5000')

    def end_move(self, slot: int, source: ServerProcess, target: ServerProcess) -> None:
        """Gives the slot to the target; the other nodes hear of it by and by."""
        for node in (target, source):
            self._command(node, f"CLUSTER SETSLOT {slot} NODE {self.id_of(target)}")

    def until_owned(self, slot: int, node: ServerProcess) -> None:
        """Waits until all nodes know that this one has the slot, and since when.

        One that has not heard of the last move would give the slot away with a number that the others know already.
        """

        def is_known() -> bool:
            return set(self._owners(slot)) == {node.port} and len(set(self._epochs())) == 1

        until(is_known, "all nodes know who has the slot")

    def move(self, slot: int, target: ServerProcess) -> None:
        """Moves a slot with all its keys, one after the other."""
        source = self.begin_move(slot, target)
        self.move_keys(slot, source, target)
        self.end_move(slot, source, target)

    def _sees(self, node: ServerProcess, count: int) -> bool:
        known = redis_command(node.port, "CLUSTER NODES")
        return known.count(b" connected") == count and b"handshake" not in known

    def _command(self, node: ServerProcess, command: str) -> None:
        answer = redis_command(node.port, command)
        if not answer.startswith(b"+OK"):
            raise RuntimeError(f"{command}: {answer.decode()}")


def _has(part: str, slot: int) -> bool:
    if part.startswith("["):  # on its way
        return False
    begin, _, end = part.partition("-")
    return int(begin) <= slot <= int(end or begin)


# --- Prometheus


def prometheus(
    folder: Path, targets: Sequence[str | Path], rules: Sequence[Path] = (), every: str = "1s"
) -> ServerProcess:
    """Returns a Prometheus that scrapes every second; it is not started.

    Args:
        folder: for its configuration, data and log.
        targets: files of targets (`file_sd`), absolute; `*` may stand in a file's name.
        rules: files of rules; they are evaluated every second, whatever interval they give.
        every: another interval for both.
    """
    for file in rules:
        (folder / file.name).write_text(
            re.sub(r"^( *interval:) .+", rf"\1 {every}", file.read_text(), flags=re.MULTILINE)
        )
    interval = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    discovery = {"files": [str(target) for target in targets], "refresh_interval": "1s"}
    job = {"job_name": "aurelis-cache", "file_sd_configs": [discovery]}
    config = folder / "prometheus.yml"
    names = [file.name for file in rules]
    config.write_text(json.dumps({"global": interval, "rule_files": names, "scrape_configs": [job]}))  # JSON is YAML

    def arguments(port: int) -> list[str]:
        return [
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={HOST}:{port}",
            "--log.level=warn",
        ]

    def is_ready(port: int, _pid: int) -> bool:
        try:
            with _opener.open(f"http://{HOST}:{port}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    return ServerProcess("prometheus", arguments, is_ready, f"http://{HOST}:{{port}}", folder)


def query_prometheus(server: ServerProcess, expression: str) -> list[tuple[dict[str, str], float]]:
    """Evaluates an expression now; returns the labels and the value of each series.

    Raises:
        ValueError: Prometheus does not accept the expression; its message is in the text.
    """
    query = urllib.parse.urlencode({"query": expression})
    try:
        with _opener.open(f"{server.url}/api/v1/query?{query}", timeout=10) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise ValueError(f"{expression}: {error.read().decode()}") from error
    return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]
