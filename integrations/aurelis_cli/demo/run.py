"""Runs the demo: starts its processes, shows what they report, and ends with a summary."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from . import catalog
from .asking import ask
from .files import DATA, folder, write_json
from .gate import Gate
from .metrics import Snapshot, merged, parse
from .processes import Child, DemoError, Interrupts, Processes, listener
from .settings import HOST, DriverSettings, ModelSettings, Options, WorkerSettings
from .summary import Evidence, caches_of, summarise
from .trouble import Trouble
from .view import Board, Frame

READY: Final = 30.0
"""Seconds that the servers may take to answer."""
REFRESH: Final = 0.5
"""Seconds between two looks at the workers."""
DRAIN: Final = 12.0
"""Seconds that the driver may take to end; more than its own patience."""
_PACKAGE: Final = "aurelis_cli.demo"


class Demo:
    """One run, inside the contexts that clean up after it."""

    def __init__(
        self,
        options: Options,
        console: Console,
        folder: Path,
        interrupts: Interrupts,
        gate: Gate | None,
        processes: Processes,
    ) -> None:
        """Start nothing yet. `gate`: in front of Redis, if that is to fail on purpose."""
        self._options = options
        self._console = console
        self._folder = folder
        self._interrupts = interrupts
        self._processes = processes
        self._temporary = None if options.state_dir is not None else str(folder)
        self._catalog = str(folder / "catalog.sqlite")
        self._web: list[int] = []
        self._internal: list[int] = []
        self._model: int | None = None
        self._began = 0.0
        self._gate = gate

    def run(self) -> None:
        """Everything, until the end that was asked for.

        Raises:
            DemoError: It cannot go on.
        """
        catalog.build(Path(self._catalog))
        self._start_servers()
        self._write_files()
        with Board(self._console, shared=self._options.redis_url is not None) as board:
            if not self._wait_until_ready():
                return
            self._introduce()
            driver = self._start_driver()
            self._began = time.monotonic()
            with self._make_trouble() as trouble:
                self._watch(board, "traffic", self._options.seconds, trouble)
            self._stop_driver(driver)
            if self._options.hold and not self._interrupts.count:
                self._watch(board, "no more traffic", self._options.hold)
            evidence = self._evidence()
        summarise(self._console, evidence, shared=self._options.redis_url is not None)

    # Starting

    def _start_servers(self) -> None:
        options = self._options
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        key = environment.pop("OPENAI_API_KEY", None)
        model_url = options.upstream
        if model_url is None:
            model = listener()
            self._model = _port(model)
            model_url = f"http://{HOST}:{self._model}/v1"
            settings = ModelSettings(fd=model.fileno(), temporary=self._temporary)
            self._processes.start("model", f"{_PACKAGE}.model", settings, listeners=[model], environment=environment)
        elif key is not None:
            environment["OPENAI_API_KEY"] = key
        namespace = f"aurelis-demo-{secrets.token_hex(4)}"
        for index in range(1 if options.redis_url is None else 2):
            web, internal = listener(options.port + index if options.port else 0), listener()
            self._web.append(_port(web))
            self._internal.append(_port(internal))
            worker = WorkerSettings(
                web_fd=web.fileno(),
                internal_fd=internal.fileno(),
                catalog=self._catalog,
                data=str(self._folder / DATA),
                namespace=namespace,
                redis_url=options.redis_url if self._gate is None else self._gate.url,
                model_url=model_url,
                model=options.model,
                real_model=options.upstream is not None,
                temporary=self._temporary,
            )
            self._processes.start(
                f"worker {index + 1}",
                f"{_PACKAGE}.worker",
                worker,
                listeners=[web, internal],
                environment=environment,
            )

    def _start_driver(self) -> Child:
        environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
        settings = DriverSettings(
            origins=self._urls(self._web),
            catalog=self._catalog,
            counts=str(self._folder / "driver.json"),
            rate=self._options.rate,
            users=self._options.users,
            seed=self._options.seed,
            stand_in=self._options.upstream is None,
            careless=self._options.faults is not None,
            temporary=self._temporary,
        )
        return self._processes.start("driver", f"{_PACKAGE}.driver", settings, environment=environment)

    def _make_trouble(self) -> AbstractContextManager[Trouble | None]:
        if self._options.faults is None:
            return nullcontext()
        switches = [*self._internal, *([] if self._model is None else [self._model])]
        return Trouble(
            self._options.faults,
            self._folder,
            web=self._web[0],
            switches=switches,
            gate=self._gate,
            model=self._model is not None,
        )

    def _write_files(self) -> None:
        """Where everything is: for Prometheus, and for programs that watch the demo."""
        targets = [f"{HOST}:{port}" for port in self._internal]
        write_json(self._folder / "targets.json", [{"targets": targets}])
        write_json(
            self._folder / "demo.json",
            {
                "web": self._urls(self._web),
                "metrics": [f"{url}/metrics" for url in self._urls(self._internal)],
                "origin": [f"{url}/origin" for url in self._urls(self._internal)],
                "client": [f"{url}/client" for url in self._urls(self._internal)],
                "model_calls": None if self._model is None else f"http://{HOST}:{self._model}/calls",
                "targets": str(self._folder / "targets.json"),
                "driver": str(self._folder / "driver.json"),
            },
        )

    def _wait_until_ready(self) -> bool:
        """True when all servers answer; false if the user wants to end before."""
        deadline = time.monotonic() + READY
        waiting = [(port, "/metrics") for port in self._internal]
        if self._model is not None:
            waiting.append((self._model, "/calls"))
        while waiting:
            self._processes.check()
            try:
                ask(*waiting[0], timeout=0.5)
            except OSError:
                if time.monotonic() > deadline:
                    raise DemoError(f"the servers did not answer within {READY:.0f} s") from None
                if self._interrupts.sleep(0.05):
                    return False
            else:
                waiting.pop(0)
        return not self._interrupts.count

    def _introduce(self) -> None:
        def say(text: str) -> None:
            self._console.print(text, highlight=False, soft_wrap=True)

        for url in self._urls(self._web):
            say(f"web app      {url}/")
        for url in self._urls(self._internal):
            say(f"metrics      {url}/metrics")
        say(f"Prometheus   file_sd target file: {self._folder / 'targets.json'}")
        if self._options.seconds is None:
            say("Ctrl-C ends it.")
        say("")

    # Watching

    def _watch(self, board: Board, state: str, seconds: float | None, trouble: Trouble | None = None) -> None:
        """Show what is reported until `seconds` are over (`None`: for ever) or a signal comes."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            self._processes.check()
            words = ", ".join(filter(None, (state, trouble.words if trouble is not None else "")))
            board.show(Frame(time.monotonic() - self._began, caches_of(merged(self._scrape())), words))
            remaining = REFRESH if deadline is None else deadline - time.monotonic()
            if self._interrupts.sleep(min(REFRESH, max(remaining, 0))):
                return

    def _scrape(self) -> Iterator[Snapshot]:
        for port in self._internal:
            try:
                text = ask(port, "/metrics")
            except OSError as error:
                self._processes.check()
                raise DemoError(f"no metrics from {HOST}:{port}: {type(error).__name__}") from error
            yield parse(text.decode())

    # Ending

    def _stop_driver(self, driver: Child) -> None:
        """End the traffic; requests in flight may be answered, unless there is another signal."""
        deadline = time.monotonic() + DRAIN
        impatience = self._interrupts.count + 1

        def wait() -> bool:
            return not self._interrupts.sleep(0.05, until=impatience) and time.monotonic() < deadline

        self._processes.finish(driver, wait=wait)

    def _evidence(self) -> Evidence:
        """What the caches report, and what everybody else counted."""
        origin: Counter[str] = Counter()
        client = 0
        for port in self._internal:
            origin.update(json.loads(ask(port, "/origin")))
            client += json.loads(ask(port, "/client"))["model_calls"]
        model = None if self._model is None else json.loads(ask(self._model, "/calls"))["started"]
        try:
            driver: dict[str, Any] | None = json.loads((self._folder / "driver.json").read_text())
        except FileNotFoundError:  # it was killed
            driver = None
        return Evidence(merged(self._scrape()), driver, origin, client, model)

    @staticmethod
    def _urls(ports: list[int]) -> list[str]:
        return [f"http://{HOST}:{port}" for port in ports]


def run(options: Options, console: Console | None = None) -> int:
    """Run the demo and return the exit status: 0 also after Ctrl-C, 1 if it could not go on."""
    console = console or Console()
    try:
        with (
            folder(options.state_dir) as place,
            Interrupts() as interrupts,
            _gate(options) as gate,  # until the last process has ended
            Processes(place, interrupts) as processes,
        ):
            Demo(options, console, place, interrupts, gate, processes).run()
    except DemoError as error:
        Console(stderr=True).print(f"aurelis-cache demo: {error}", highlight=False, markup=False, soft_wrap=True)
        return 1
    return 0


def _gate(options: Options) -> AbstractContextManager[Gate | None]:
    return nullcontext() if options.faults is None or options.redis_url is None else Gate(options.redis_url)


def _port(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port
