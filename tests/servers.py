"""Real servers for tests: each is a process of its own on a free loopback port, ended by its PID."""

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

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


def redis(folder: Path) -> ServerProcess:
    """Returns a Redis that keeps nothing on disk; it is not started."""

    def arguments(port: int) -> list[str]:
        options = {"port": str(port), "bind": HOST, "save": "", "appendonly": "no", "dir": str(folder)}
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def is_ready(port: int, pid: int) -> bool:
        # Another Redis may have taken the port; the PID tells.
        return f"process_id:{pid}\r\n".encode() in redis_command(port, "INFO server")

    return ServerProcess("redis-server", arguments, is_ready, f"redis://{HOST}:{{port}}/0", folder)


def redis_command(port: int, command: str) -> bytes:
    """Sends one inline command without any client library; returns the answer, empty if there is none."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            connection.sendall(f"{command}\r\nQUIT\r\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError:
        return b""


# --- Prometheus


def prometheus(folder: Path, targets: Sequence[str | Path]) -> ServerProcess:
    """Returns a Prometheus that scrapes every second; it is not started.

    Args:
        folder: for its configuration, data and log.
        targets: files of targets (`file_sd`), absolute; `*` may stand in a file's name.
    """
    interval = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    discovery = {"files": [str(target) for target in targets], "refresh_interval": "1s"}
    job = {"job_name": "aurelis-cache", "file_sd_configs": [discovery]}
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"global": interval, "scrape_configs": [job]}))  # JSON is YAML

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
