"""What do compression and encryption cost when a value is stored and when it is read, and how many bytes are left?

A frame is written and read without any layer, so the numbers are what is added to a store and to a hit in Redis or on
the disk: compare them with what the round trip takes. What is stored is records in JSON, as an API answers them, with
words drawn from a vocabulary of some hundred.

The numbers mislead for other content: what is compressed already, such as pictures or bodies with `Content-Encoding`,
is tried and left as it is; what repeats itself more becomes smaller than here.
"""

from __future__ import annotations

import json
import random
from typing import Any

from rich.table import Table

from aurelis.cache.codecs import Frame, Framing, ValueCodec, make_framing
from tests.benchmarks.harness import Bench, Measured, Subject, always

_KEY = bytes(range(32))
_FORMS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "zstd": {"compression": "zstd"},
    "gzip": {"compression": "gzip"},
    "encrypted": {"encryption_key": _KEY},
    "zstd, encrypted": {"compression": "zstd", "encryption_key": _KEY},
    "gzip, encrypted": {"compression": "gzip", "encryption_key": _KEY},
}
_SIZES = (1_000, 3_000, 30_000, 300_000, 3_000_000)
_ROUNDS = 15
_BYTES_A_ROUND = 6_000_000


def run(bench: Bench) -> None:
    """Print the table."""
    table = Table(title="a frame of JSON", title_justify="left")
    for column in ("bytes", "form"):
        table.add_column(column)
    for column in ("stored bytes", "part", "write µs", "read µs", "added to a write µs", "added to a read µs"):
        table.add_column(column, justify="right")
    for size in _SIZES:
        payload = ValueCodec().dumps(records(size))
        framings = {name: make_framing("bench", threshold=1, **options) for name, options in _FORMS.items()}
        stored = {name: written(framing, payload) for name, framing in framings.items()}
        subjects = []
        for name, framing in framings.items():
            subjects += [writing(name, framing, payload), reading(name, framing, stored[name])]
        count = max(2, min(1000, _BYTES_A_ROUND // size // 10))
        measured = {row.name: row for row in bench.measure(subjects, rounds=_ROUNDS, count=count)}
        plain = [measured[f"{action} as it is"] for action in ("write", "read")]
        for name in _FORMS:
            rows = [measured[f"{action} {name}"] for action in ("write", "read")]
            table.add_row(
                f"{len(payload):,}",
                name,
                f"{len(stored[name]):,}",
                f"{len(stored[name]) / len(stored['as it is']):.2f}",
                *[micros(row) for row in rows],
                *["" if name == "as it is" else micros(row, base) for row, base in zip(rows, plain, strict=True)],
            )
        table.add_section()
    bench.console.print(table)


def micros(row: object, base: object | None = None) -> str:
    """The best round, less that of another row."""
    assert isinstance(row, Measured)
    assert base is None or isinstance(base, Measured)
    return f"{(row.wall - (0 if base is None else base.wall)) * 1e6:,.1f}"


def writing(name: str, framing: Framing, payload: bytes) -> Subject:
    """Makes a frame."""
    return Subject(f"write {name}", lambda _: written(framing, payload), always(None), blocking=True)


def reading(name: str, framing: Framing, stored: bytes) -> Subject:
    """Opens a frame up to the bytes that the codec wrote."""
    return Subject(f"read {name}", lambda _: framing.decode(stored, "aurelis:v1:a:b"), always(None), blocking=True)


def written(framing: Framing, payload: bytes) -> bytes:
    """The bytes of a frame."""
    return framing.encode(Frame("aurelis:v1:a:b", 1_700_000_000.0, 60.0, 0.0, payload))


def records(size: int) -> bytes:
    """JSON of so many bytes, cut off where it is long enough."""
    source = random.Random(17)
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(2, 9))) for _ in range(400)]
    found: list[dict[str, object]] = []
    length = 0
    while length < size:
        number = len(found)
        found.append(
            {
                "id": source.randrange(10**9),
                "name": " ".join(source.choices(words, k=3)),
                "price": round(source.random() * 1000, 2),
                "available": source.random() < 0.8,
                "description": " ".join(source.choices(words, k=25)),
                "links": {"self": f"https://api.example.com/products/{number}"},
            }
        )
        length += len(json.dumps(found[-1]))
    return json.dumps(found).encode()[:size]
