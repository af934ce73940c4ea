"""Runs all probes against all caches, in an environment that has them; prints what came out as JSON."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import sys
import warnings
from typing import Any

from tests.client.upstream import Server
from tests.compare.bench import PASSED, VOID, asked
from tests.compare.probes import PROBES
from tests.compare.subjects import SUBJECTS


async def table(server: Server) -> dict[str, Any]:
    """The outcome of each probe for each cache, `VOID` where the cache keeps no such calls."""
    outcomes: dict[str, dict[str, str]] = {probe.name: {} for probe in PROBES}
    for kind in SUBJECTS:
        for probe in PROBES:
            void = bool(probe.needs) and outcomes[probe.needs][kind.name] != PASSED
            outcome = VOID if void else await asked(probe, kind(), server)
            outcomes[probe.name][kind.name] = outcome
            print(f"{kind.name}: {probe.name}: {outcome}", file=sys.stderr, flush=True)
    packages = [*(name for kind in SUBJECTS for name in kind.packages), "openai", "httpx2"]
    return {"outcomes": outcomes, "versions": {name: importlib.metadata.version(name) for name in packages}}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    with Server().running() as running:
        print(json.dumps(asyncio.run(table(running))))
