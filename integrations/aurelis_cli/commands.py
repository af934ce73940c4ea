"""The command line: `aurelis-cache demo`, `aurelis-cache top` and `aurelis-cache warm`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit, urlunsplit

import typer

from ._extras import DEMO, TOP, WARM, missing

_EXPORTER: Final = ("OTEL_EXPORTER_PROMETHEUS_HOST", "OTEL_EXPORTER_PROMETHEUS_PORT")
"""Where OpenTelemetry's exporter for Prometheus listens; without them at localhost:9464."""
_UPSTREAM_KEY: Final = "OPENAI_API_KEY"
_FIELD: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\x20-\x7e]+)")
_VALUE: Final = re.compile(r"[\x20-\x7e]+")
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            number = version("aurelis-cache")
        except PackageNotFoundError:
            number = "(not installed: run from its sources)"
        typer.echo(f"aurelis-cache {number}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Cache for web apps and API clients, observed through OpenTelemetry."""


@app.command()
def demo(
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="End the traffic after so long. Left out: at Ctrl-C.")
    ] = None,
    hold: Annotated[
        float, typer.Option(min=0, help="After --seconds, keep everything up so long without traffic.")
    ] = 0.0,
    faults: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="After so long, let Redis, the app and the model fail, one after the other."
        ),
    ] = None,
    redis: Annotated[
        str | None, typer.Option(metavar="URL", help="Share the caches of two workers through this Redis.")
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=f"Ask a real OpenAI-compatible endpoint, with the key in {_UPSTREAM_KEY}. Needs --model.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask for at --upstream.")] = None,
    port: Annotated[
        int,
        typer.Option(min=0, max=65534, help="Port of the web app; a second worker takes the next. 0: any."),
    ] = 0,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second to aim at.")] = 150.0,
    users: Annotated[int, typer.Option(min=1, max=1000, help="Requests in flight at most.")] = 32,
    seed: Annotated[int, typer.Option(help="The same seed sends the same sequence of requests.")] = 1,
    state_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keep the demo's files here: targets for Prometheus, counts, logs."),
    ] = None,
) -> None:
    """Run a web app that asks a chat model, cache both, send traffic, and watch.

    Everything listens on loopback only, and everything that was started is gone afterwards.
    """
    if message := missing(DEMO):
        sys.exit(message)
    if (upstream is None) != (model is None):
        raise typer.BadParameter("--upstream and --model belong together")
    if upstream is not None:
        if not upstream.startswith(("http://", "https://")):
            raise typer.BadParameter(
                "must be the base URL of the API, for instance http://127.0.0.1:11434/v1",
                param_hint="--upstream",
            )
        if not os.environ.get(_UPSTREAM_KEY):
            raise typer.BadParameter(
                f"set {_UPSTREAM_KEY} in the environment; any text if the endpoint needs no key",
                param_hint="--upstream",
            )
    from aurelis.cache import CacheConfig
    from aurelis.cache.exceptions import CacheError

    from .demo.run import run
    from .demo.settings import STAND_IN, Options

    try:
        CacheConfig(redis_url=redis)
    except CacheError as error:
        raise typer.BadParameter(str(error), param_hint="--redis") from None
    if faults is not None and redis is not None and not redis.startswith("redis://"):
        raise typer.BadParameter("takes a --redis that begins with redis://", param_hint="--faults")
    options = Options(
        seconds=seconds,
        hold=hold,
        faults=faults,
        redis_url=redis,
        upstream=upstream,
        model=model or STAND_IN,
        port=port,
        rate=rate,
        users=users,
        seed=seed,
        state_dir=state_dir,
    )
    raise typer.Exit(run(options))


@app.command()
def top(
    url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Metrics of a process; repeat for more. Left out: where OpenTelemetry's exporter listens,"
            " http://localhost:9464/metrics unless OTEL_EXPORTER_PROMETHEUS_HOST and _PORT say otherwise.",
        ),
    ] = None,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one table and end, as it does where this is no terminal.")
    ] = False,
    cache: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Show this cache; repeat for more. Left out: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and end.")] = False,
) -> None:
    """Show what the caches of running processes do: rates, hits, latencies, savings, layers.

    It reads what they export in the text format of Prometheus, so it needs no Prometheus. Ctrl-C ends it.

    Ends with 1 if it printed once and no endpoint could be read, and with 2 if an option is wrong.
    """
    if message := missing(TOP):
        sys.exit(message)
    from .top.run import Options, run

    urls = [_endpoint(one) for one in url or (_default_endpoint(),)]
    raise typer.Exit(run(Options(urls=urls, interval=interval, once=once, json=as_json, caches=cache or ())))


def _default_endpoint() -> str:
    host, port = (os.environ.get(name) or usual for name, usual in zip(_EXPORTER, ("localhost", "9464"), strict=True))
    return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"


def _endpoint(url: str) -> str:
    """A URL with its path. It may hold a credential, so no message has it."""
    from httpx2 import URL, InvalidURL

    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.port != 0 and not parts.fragment and URL(url).host
    except (ValueError, InvalidURL):  # a port or a host that is none
        good = ""
    if not good:
        raise typer.BadParameter("must be like http://127.0.0.1:9464/metrics", param_hint="--url")
    return urlunsplit(parts._replace(path="/metrics")) if parts.path in ("", "/") else url


@app.command()
def warm(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="The calls, one JSON object a line.")],
    base_url: Annotated[str, typer.Option(metavar="URL", help="Where the API is, as the app's client has it.")],
    redis: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The Redis of the app's cache. In place of AURELIS_CACHE_REDIS_URL."),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder of the app's cache. In place of AURELIS_CACHE_CACHE_DIR."),
    ] = None,
    cache_namespace: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The namespace of the app's cache. In place of AURELIS_CACHE_NAMESPACE."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: VALUE'",
            help="Field of each call; repeat for more. $NAME in it is taken from the environment, so keep keys there.",
        ),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="The namespace of the app's transport, if it has one.")
    ] = None,
    share_across_credentials: Annotated[
        bool, typer.Option("--share-across-credentials", help="If the app's transport has that.")
    ] = False,
    ttl: Annotated[float, typer.Option(min=1, help="Seconds that an answer lives.")] = 3600.0,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Calls at a time.")] = 4,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the next part of an answer.")] = 600.0,
    progress: Annotated[bool, typer.Option(help="Draw a bar, if this is a terminal.")] = True,
) -> None:
    """Send the model calls of a file through the cache, so that an app finds their answers there.

    Calls whose answer is there are not sent, so after an interruption the same command goes on where it was.
    The cache is configured as the app's is, by the variables AURELIS_CACHE_... (AURELIS_CACHE_SECRET, for instance).

    Ends with 0 if all answers are there, 1 if some are not, 2 if an option or a line is wrong, and 130 at Ctrl-C.
    """
    if message := missing(WARM):
        sys.exit(message)
    from aurelis.cache import load_config
    from aurelis.cache.exceptions import CacheError

    from .warm.run import NAME, Options, run, without_memory

    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise typer.BadParameter(
            "must be the base URL of the API, such as https://api.openai.com/v1", param_hint="--base-url"
        )
    given = {"redis_url": redis, "cache_dir": cache_dir, "namespace": cache_namespace}
    try:
        config = without_memory(
            load_config(name=NAME, **{name: value for name, value in given.items() if value is not None})
        )
    except (CacheError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="the cache") from None
    if config is None:
        raise typer.BadParameter(
            "needed, as what is in memory is gone with this command", param_hint="--redis or --cache-dir"
        )
    options = Options(
        file=file,
        base_url=base_url,
        headers=_fields(header or ()),
        config=config,
        ttl=ttl,
        namespace=namespace,
        share_across_credentials=share_across_credentials,
        concurrency=concurrency,
        timeout=timeout,
        progress=progress and sys.stderr.isatty(),
    )
    raise typer.Exit(run(options))


def _fields(given: Sequence[str]) -> list[tuple[str, str]]:
    """Fields as they are sent. Their values, which may be credentials, are in no message."""
    fields = []
    for one in given:
        match = _FIELD.fullmatch(one)
        if match is None:
            raise typer.BadParameter("must be like 'Authorization: Bearer $OPENAI_API_KEY'", param_hint="--header")
        named = [a or b for a, b in _VARIABLE.findall(match[2])]
        absent = [name for name in named if not os.environ.get(name)]
        if absent:
            raise typer.BadParameter(f"set {' and '.join(absent)} in the environment", param_hint="--header")
        for name in named:
            if _VALUE.fullmatch(os.environ[name]) is None:
                problem = "holds a character that is not ASCII, or a control character; perhaps a line end at its end"
                raise typer.BadParameter(f"{name} in the environment {problem}", param_hint="--header")
        fields.append((match[1], _VARIABLE.sub(lambda name: os.environ[name[1] or name[2]], match[2])))
    return fields
