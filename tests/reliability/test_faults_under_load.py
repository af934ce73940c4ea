"""Several processes ask and change without a break, and meanwhile Redis and the network fail in every way.

No request fails or is lost, each answer was right a short time ago, nobody waits for long, and all heals by itself.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.fleet import Fleet
from tests.proxies import Drop, Fault, Hang, Latency, Proxy, Refuse
from tests.reliability.phases import check, run
from tests.reliability.traffic import PROCESSES
from tests.servers import ServerProcess, redis_command


@dataclass
class Bed:
    """What can be made to fail."""

    server: ServerProcess
    proxies: list[Proxy]
    fleet: Fleet
    seconds: float

    def redis(self, command: str) -> bytes:
        """Runs a command, past the proxies."""
        answer = redis_command(self.server.port, command)
        assert not answer.startswith(b"-"), answer
        return answer


Happening: TypeAlias = Callable[[Bed], None]


def restarted(bed: Bed) -> None:
    """Redis is killed and comes back empty."""
    os.kill(bed.server.pid, signal.SIGKILL)
    bed.server.stop()
    time.sleep(bed.seconds)
    bed.server.start()


def paused(bed: Bed) -> None:
    """Redis hangs."""
    bed.server.pause()
    time.sleep(bed.seconds)
    bed.server.resume()


def clients_killed(bed: Bed) -> None:
    """Redis ends the connections of commands and of subscribers."""
    for kind in ("normal", "pubsub", "normal", "pubsub"):
        bed.redis(f"CLIENT KILL TYPE {kind}")
        time.sleep(bed.seconds / 8)


def clients_paused(bed: Bed) -> None:
    """Redis answers nobody for a while, or nobody who writes."""
    for what in ("ALL", "WRITE"):
        bed.redis(f"CLIENT PAUSE {int(bed.seconds * 1000)} {what}")
        time.sleep(bed.seconds)


def out_of_memory(bed: Bed) -> None:
    """Redis refuses to write."""
    bed.redis("CONFIG SET maxmemory-policy noeviction")
    bed.redis("CONFIG SET maxmemory 1")
    time.sleep(bed.seconds)
    bed.redis("CONFIG SET maxmemory 0")


_EVICT = """EVAL "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end return 1" 0 """


def order_evicted(bed: Bed) -> None:
    """Redis forgets tags, leases and the number of changes, as it may under `allkeys-lru`."""
    end = time.monotonic() + bed.seconds
    for what in itertools.cycle(["fleet:t:*", "fleet:l:*", "fleet:clock", "fleet:[tl]:*"]):
        bed.redis(_EVICT + what)
        time.sleep(0.02)
        if time.monotonic() > end:
            return


def least_recently_used_evicted(bed: Bed) -> None:
    """Redis has less memory than it needs, and forgets what it likes."""
    bed.redis("CONFIG SET maxmemory-policy allkeys-lru")
    evicted = _number(bed, "stats", b"evicted_keys")
    end = time.monotonic() + bed.seconds
    while time.monotonic() < end or _number(bed, "stats", b"evicted_keys") < evicted + 50:
        bed.redis(f"CONFIG SET maxmemory {_number(bed, 'memory', b'used_memory') - 200}")
        time.sleep(0.05)
    bed.redis("CONFIG SET maxmemory 0")
    bed.redis("CONFIG SET maxmemory-policy noeviction")


def _number(bed: Bed, section: str, name: bytes) -> int:
    return int(bed.redis(f"INFO {section}").split(name + b":")[1].split()[0])


def process_stopped(bed: Bed) -> None:
    """A process stands still, and goes on."""
    bed.fleet.pause(PROCESSES - 1)
    time.sleep(bed.seconds)
    bed.fleet.resume(PROCESSES - 1)


def network(fault: Fault, *, all_of_them: bool = False, reset: bool = False) -> Happening:
    """What lies between one process and Redis fails, or between all and Redis."""

    def happens(bed: Bed) -> None:
        proxies = bed.proxies if all_of_them else bed.proxies[1:2]
        with contextlib.ExitStack() as stack:
            for proxy in proxies:
                stack.enter_context(proxy.during(fault))
                if reset:
                    proxy.reset()
            time.sleep(bed.seconds)
        if isinstance(fault, Drop | Refuse):
            for proxy in proxies:  # what has disappeared stays so
                proxy.reset()

    return happens


def reset_again_and_again(bed: Bed) -> None:
    """Connections are reset."""
    for proxy in bed.proxies * 2:
        proxy.reset()
        time.sleep(bed.seconds / 6)


HAPPENINGS: dict[str, Happening] = {
    "restarted": restarted,
    "paused": paused,
    "clients killed": clients_killed,
    "clients paused": clients_paused,
    "out of memory": out_of_memory,
    "order evicted": order_evicted,
    "least recently used evicted": least_recently_used_evicted,
    "half open, nothing arrives there": network(Drop("to_server")),
    "half open, nothing comes back": network(Drop("to_client")),
    "hanging": network(Hang(), all_of_them=True),
    "slow": network(Latency(0.05, jitter=0.1), all_of_them=True),
    "slower than the timeout": network(Latency(0.4)),
    "refused": network(Refuse(), reset=True),
    "reset": reset_again_and_again,
    "process stopped": process_stopped,
}


def test_whatever_happens_no_request_fails_and_it_heals(own_redis: ServerProcess, tmp_path: Path) -> None:
    """One thing after the other, with requests all the time."""
    through(own_redis, tmp_path, HAPPENINGS, 0.35)


@pytest.mark.reliability
@pytest.mark.parametrize("name", HAPPENINGS)
def test_while_it_happens_again_and_again_no_request_fails_and_it_heals(
    own_redis: ServerProcess, tmp_path: Path, name: str
) -> None:
    happenings = {f"{name} {turn}": HAPPENINGS[name] for turn in range(5)}
    through(own_redis, tmp_path, happenings, 1.5)


def through(server: ServerProcess, folder: Path, happenings: dict[str, Happening], seconds: float) -> None:
    """Lets all this happen, and checks what is said of it."""
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(server.url)) for _ in range(PROCESSES)]

        def in_bed(happening: Happening) -> Callable[[Fleet], None]:
            return lambda fleet: happening(Bed(server, proxies, fleet, seconds))

        check(*run([proxy.url for proxy in proxies], folder, {name: in_bed(each) for name, each in happenings.items()}))
