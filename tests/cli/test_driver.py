"""The traffic: what is sent, in which order, and what is counted."""

import asyncio
import http
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from aurelis_cli.demo.catalog import build
from aurelis_cli.demo.driver import MIX, Driver, cache_result, requests
from aurelis_cli.demo.settings import DriverSettings

NAMES = [f"package-{number}" for number in range(60)]


def test_the_same_seed_sends_the_same_sequence() -> None:
    def first(seed: int) -> list[tuple[str, str]]:
        return list(islice(requests(NAMES, 3, seed), 200))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_kinds_come_in_their_shares_and_things_by_zipf() -> None:
    sent = list(islice(requests(NAMES, 3, 1), 20_000))
    kinds = Counter(kind for kind, _ in sent)
    for kind, weight in MIX.items():
        assert kinds[kind] / len(sent) == pytest.approx(weight / sum(MIX.values()), abs=0.02)
    packages = Counter(target for kind, target in sent if kind == "package")
    (_, first), (_, second), *_, (_, last) = packages.most_common()
    assert first / second == pytest.approx(2**1.1, rel=0.15)
    assert first > 40 * last
    assert len(packages) == len(NAMES)


def test_targets_are_urls_of_the_app() -> None:
    targets = dict(islice(requests(["a-b"], 1, 1), 400))
    assert targets["package"] == "/packages/a-b"
    assert targets["packages"] == "/packages?page=1"
    assert targets["search"].startswith("/search?q=")
    assert targets["ask"].startswith("/ask?q=Wh")
    assert " " not in targets["ask"]
    assert targets["faq"].startswith("/faq?q=")
    assert targets["related"] == "/related/a-b"
    assert re.fullmatch(r"/ratings/a-b\?user=u\d+&stars=[1-5]", targets["ratings"])


def test_careless_users_leave_out_hyphens() -> None:
    def asked(*, careless: bool) -> set[str]:
        sent = islice(requests(["a-b", "c"], 1, 1, {"faq": 1}, careless=careless), 300)
        return {target for _, target in sent}

    assert "/faq?q=What+is+a+b+for%3F" in asked(careless=True)
    assert "/faq?q=What+is+a+b+for%3F" not in asked(careless=False)


def test_a_mix_may_leave_kinds_out() -> None:
    kinds = {kind for kind, _ in islice(requests(NAMES, 3, 1, {"ask": 1, "search": 1}), 200)}
    assert kinds == {"ask", "search"}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (None, "none"),
        ("", "none"),
        ("web; hit; ttl=12", "hit"),
        ("web;hit", "hit"),
        ("web; fwd=uri-miss; stored", "uri-miss"),
        ("web; fwd=uri-miss; collapsed", "collapsed"),
        ("web; fwd=bypass; detail=cookie", "bypass"),
        ("hit", "none"),
    ],
)
def test_cache_status_is_read_for_the_counts(field: str | None, expected: str) -> None:
    assert cache_result(field) == expected


class Server:
    """Answers every request after a moment, and counts them itself."""

    def __init__(self) -> None:
        self.methods: Counter[bytes] = Counter()
        self.answered = 0
        self.under_way = 0
        self.most_under_way = 0
        self.busy = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            await asyncio.sleep(0.005)
            self.under_way -= 1
            self.answered += 1
            self.methods[head.partition(b" ")[0]] += 1
            if self.answered == 100:
                self.busy.set()
            status = http.HTTPStatus.NOT_FOUND if b"/search" in head else http.HTTPStatus.OK
            writer.write(f"HTTP/1.1 {status} X\r\ncache-status: web; hit\r\ncontent-length: 0\r\n\r\n".encode())
            await writer.drain()


async def test_the_driver_counts_exactly_what_it_sent_and_got(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.sqlite"
    build(catalog)
    served = Server()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await served.answer(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        settings = DriverSettings(
            origins=[f"http://127.0.0.1:{port}"],
            catalog=str(catalog),
            counts=str(tmp_path / "unused.json"),
            rate=2000.0,
            users=4,
            seed=1,
            stand_in=True,
            careless=False,
            temporary=None,
        )
        driver = Driver(settings)
        running = asyncio.create_task(driver.run())
        await served.busy.wait()
        driver.stop()
        await running
    record = driver.counts.record()
    kinds = record["kinds"]
    assert record["sent"] == record["answered"] == served.answered
    assert served.methods == {
        method: count
        for method, count in {
            b"PUT": kinds["ratings"]["sent"],
            b"GET": record["sent"] - kinds["ratings"]["sent"],
        }.items()
        if count
    }
    assert kinds["search"]["statuses"] == {"404": kinds["search"]["sent"]}
    assert kinds["package"]["statuses"] == {"200": kinds["package"]["sent"]}
    assert kinds["package"]["cache"] == {"hit": kinds["package"]["sent"]}
    assert all(kind["errors"] == {} for kind in kinds.values())
    assert served.most_under_way <= 4
    assert served.under_way == 0


async def test_requests_that_nobody_answers_are_counted_as_errors(tmp_path: Path, unused_tcp_port: int) -> None:
    catalog = tmp_path / "catalog.sqlite"
    build(catalog)
    settings = DriverSettings(
        origins=[f"http://127.0.0.1:{unused_tcp_port}"],
        catalog=str(catalog),
        counts=str(tmp_path / "unused.json"),
        rate=1000.0,
        users=2,
        seed=1,
        stand_in=True,
        careless=False,
        temporary=None,
    )
    driver = Driver(settings)
    running = asyncio.create_task(driver.run())
    asyncio.get_running_loop().call_later(0.2, driver.stop)
    await running
    record = driver.counts.record()
    assert record["sent"] > 0
    assert record["answered"] == 0
    assert sum(kind["errors"].get("ConnectError", 0) for kind in record["kinds"].values()) == record["sent"]
