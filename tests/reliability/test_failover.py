"""Several processes ask and change without a break, and meanwhile servers take the place of others.

No request fails or is lost, each answer was right a short time ago, nobody waits for long, and all heals by itself.
What a primary had confirmed and not yet copied when it was killed is lost: the next change of the key makes it good.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from redis.crc import key_slot

from aurelis.cache import CacheKeyBuilder
from aurelis.cache._tags import own
from aurelis.cache.layers._names import Names
from tests.reliability.phases import check, run
from tests.reliability.traffic import KEYS, PROCESSES
from tests.servers import HOST, ClusterSetup, SentinelSetup, ServerProcess, redis_command, until

TURNS = 2


def killed(server: ServerProcess) -> None:
    """Ends it without a chance to say anything."""
    os.kill(server.pid, signal.SIGKILL)
    server.stop()


# --- sentinels


def primary_killed(setup: SentinelSetup) -> None:
    """The primary dies, its replica takes its place, and it comes back as the replica."""
    victim, other = primary_and_replica(setup)
    killed(victim)
    until(lambda: is_primary(other), "a new primary")
    time.sleep(0.5)
    victim.start()
    follow(victim, other, setup)


def primary_hangs(setup: SentinelSetup) -> None:
    """The primary stands still, its replica takes its place, and then it goes on as if nothing had happened."""
    victim, other = primary_and_replica(setup)
    victim.pause()
    until(lambda: is_primary(other), "a new primary")
    time.sleep(0.5)
    victim.resume()
    follow(victim, other, setup)


def failover_asked_for(setup: SentinelSetup) -> None:
    """Somebody asks the sentinels for another primary. The old one stays writable for a while."""
    victim, other = primary_and_replica(setup)
    ask = "SENTINEL FAILOVER main"
    until(lambda: redis_command(setup.sentinels[0].port, ask).startswith(b"+OK"), "a failover")
    until(lambda: is_primary(other), "a new primary")
    follow(victim, other, setup)


def primary_and_replica(setup: SentinelSetup) -> tuple[ServerProcess, ServerProcess]:
    """Both servers, once the sentinels could replace one by the other."""
    setup.until_replicated()
    primary = setup.primary
    return primary, next(server for server in setup.servers if server is not primary)


def is_primary(server: ServerProcess) -> bool:
    """What the server says of itself."""
    return b"role:master" in redis_command(server.port, "INFO replication")


def follow(server: ServerProcess, primary: ServerProcess, setup: SentinelSetup) -> None:
    """Makes the server a replica, as the sentinels do after some seconds."""
    assert redis_command(server.port, f"REPLICAOF {HOST} {primary.port}").startswith(b"+OK")
    setup.until_replicated()


@pytest.mark.reliability
@pytest.mark.parametrize("happening", [primary_killed, primary_hangs, failover_asked_for])
def test_while_sentinels_replace_the_primary_no_request_fails_and_it_heals(
    tmp_path: Path, happening: Callable[[SentinelSetup], None]
) -> None:
    (tmp_path / "servers").mkdir()
    setup = SentinelSetup(tmp_path / "servers")
    try:
        setup.start()
        happenings = {f"{happening.__name__} {turn}": lambda _: happening(setup) for turn in range(TURNS)}
        check(*run([setup.url] * PROCESSES, tmp_path, happenings))
    finally:
        setup.stop()


# --- a cluster


def node_killed(setup: ClusterSetup) -> None:
    """A primary dies, its replica takes its place, and it comes back as the replica."""
    replaced(setup, killed)


def node_hangs(setup: ClusterSetup) -> None:
    """A primary stands still, its replica takes its place, and then it goes on as if nothing had happened."""
    replaced(setup, ServerProcess.pause)


def replaced(setup: ClusterSetup, fault: Callable[[ServerProcess], None]) -> None:
    """The primary that numbers all changes fails."""
    victim = setup.owner_of(key_slot(Names("fleet").clock))
    others = [node for node in setup.nodes if node is not victim]

    def is_replaced() -> bool:
        seen = redis_command(others[0].port, "CLUSTER NODES").splitlines()
        failed = any(b":%d@" % victim.port in line and b"master,fail " in line for line in seen)
        return failed and b"cluster_state:ok" in redis_command(others[0].port, "CLUSTER INFO")

    fault(victim)
    until(is_replaced, "another primary")
    time.sleep(0.5)
    if fault is killed:
        victim.start()
    else:
        victim.resume()
    until(lambda: all(setup.is_well(node) for node in setup.nodes), "a cluster")


def slots_moved(setup: ClusterSetup) -> None:
    """Slots of entries and tags, and that of the clock, move to other nodes and back, some of them slowly."""
    names, builder = Names("fleet"), CacheKeyBuilder("fleet")
    keys = [builder.build_key("things", str(number)) for number in range(0, PROCESSES * KEYS, 7)]
    slots = {key_slot(name) for key in keys for name in (names.entry(key), names.tag(own(key)))}
    for slot, slow in zip([key_slot(names.clock), *sorted(slots)], cycle([True, False, False]), strict=False):
        home = setup.owner_of(slot)
        away = next(node for node in setup.nodes if not node_follows(node) and node is not home)
        for source, target in ((home, away), (away, home)):
            setup.begin_move(slot, target)
            time.sleep(0.1 if slow else 0.0)  # meanwhile new keys are there, and old ones here
            setup.move_keys(slot, source, target)
            setup.end_move(slot, source, target)
            setup.until_owned(slot, target)


def node_follows(node: ServerProcess) -> bool:
    """Whether it is a replica."""
    return b"role:slave" in redis_command(node.port, "INFO replication")


@pytest.mark.reliability
@pytest.mark.parametrize("happening", [node_killed, node_hangs, slots_moved])
def test_while_nodes_of_a_cluster_change_no_request_fails_and_it_heals(
    own_cluster: ClusterSetup, tmp_path: Path, happening: Callable[[ClusterSetup], None]
) -> None:
    happenings = {f"{happening.__name__} {turn}": lambda _: happening(own_cluster) for turn in range(TURNS)}
    check(*run([own_cluster.url] * PROCESSES, tmp_path, happenings))
