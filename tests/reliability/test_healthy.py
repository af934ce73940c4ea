"""An undisturbed service for longer than alerts wait: none of them fires, with the rules as they are.

`AURELIS_TESTS_HEALTHY_SECONDS` says for how long, forty minutes unless it is set; with a quicker clock it is among the
ordinary tests, in `tests/demo/test_faults.py`.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aurelis.cache.telemetry import names
from tests.demo.observed import fetch, observe
from tests.demo.rules import RULES, alerts
from tests.servers import ServerProcess

SECONDS = float(os.environ.get("AURELIS_TESTS_HEALTHY_SECONDS", "2400"))
"""More than the half hour that the most patient alerts wait, and the windows that they look at."""
pytestmark = [pytest.mark.reliability, pytest.mark.timeout(SECONDS + 300)]
RATE = "20"
"""Requests in a second: a service that is busy and not at its limit."""


def test_no_alert_fires_in_an_undisturbed_service(tmp_path: Path, redis_server: Callable[[], ServerProcess]) -> None:
    """Nor is one about to, at the end."""
    options = ("--redis", redis_server().url, "--rate", RATE)
    with observe(tmp_path, SECONDS, *options, rules=RULES, every="5s") as seen:
        assert seen.total(names.REQUESTS, "web") == seen.sent() > SECONDS
        states = seen.over('ALERTS{alertstate="firing"}', seen.began, time.time(), step=5)
        assert [each["metric"] for each in states] == []
        loaded = fetch(f"{seen.prometheus.url}/api/v1/rules?type=alert")["data"]["groups"]
        rules = {rule["name"]: rule for group in loaded for rule in group["rules"]}
        assert sorted(rules) == sorted(alerts())
        assert {name: rule["state"] for name, rule in rules.items() if rule["state"] != "inactive"} == {}
        assert {rule["health"] for rule in rules.values()} == {"ok"}, json.dumps(rules)
