"""The command line: `aurelis-cache demo`."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Final

import typer

from ._extras import DEMO, missing

_UPSTREAM_KEY: Final = "OPENAI_API_KEY"

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
    options = Options(
        seconds=seconds,
        hold=hold,
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
