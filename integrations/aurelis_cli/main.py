"""Entry point of the command `aurelis-cache`: checks what is installed, then runs the command line."""

from __future__ import annotations

import sys

from ._extras import COMMAND_LINE, missing


def main() -> None:
    """Run the command line on `sys.argv`.

    Raises:
        SystemExit: Always; with a message if the extra `server` is not installed.
    """
    if message := missing(COMMAND_LINE):
        sys.exit(message)
    from .commands import app

    app()


if __name__ == "__main__":
    from aurelis_cli.main import main as run

    run()
