"""News: who hears all numbers has missed nothing, however they come; a lost one is noticed; any bytes are no harm."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgpack import packb

from aurelis.cache._news import GRACE, Echo, Heard, decode, encode, hear
from aurelis.cache.typing import Kind, Message

TICKS = 64
"""Instants are multiples of 1/64 s, so that sums of them are exact."""
BEGIN = 1000.0
FIRST = 1_800_000_000_000_000


def change(number: int) -> Message:
    """Returns word of a change."""
    return Message(number, "node", "keys", ("k",))


def beat(number: int) -> Message:
    """Returns a sign of life."""
    return Message(number, "node", "beat")


def heard_all(deliveries: list[tuple[float, Message]], heard: Heard | None = None) -> tuple[Heard, list[float]]:
    """Returns the state after these messages, and the instants at which something was reported lost."""
    heard, gaps = heard or Heard(), []
    for now, message in deliveries:
        heard, gap = hear(heard, message, now)
        if gap:
            gaps.append(now)
    return heard, gaps


@dataclass(frozen=True)
class Traffic:
    """Changes with consecutive numbers, each sent at an instant and some time on its way, and beats among them."""

    changes: list[tuple[float, float, int]]
    beats: list[tuple[float, float, int]]

    def deliveries(self, lost: frozenset[int] = frozenset()) -> list[tuple[float, Message]]:
        """Returns what arrives, in order."""
        found = [(sent + way, change(number)) for sent, way, number in self.changes if number not in lost]
        found += [(sent + way, beat(number)) for sent, way, number in self.beats]
        return sorted(found, key=lambda delivery: delivery[0])


@st.composite
def traffic(draw: st.DrawFn, *, beats: bool) -> Traffic:
    """Any traffic in which nothing takes longer than `GRACE`; the first message is not overtaken."""
    gaps = draw(st.lists(st.integers(0, TICKS // 2), min_size=2, max_size=30))
    ways = draw(st.lists(st.integers(0, int(GRACE * TICKS)), min_size=len(gaps), max_size=len(gaps)))
    now, changes, signs = BEGIN, [(BEGIN, 0.0, FIRST)], []
    for offset, (gap, way) in enumerate(zip(gaps, ways, strict=True), 1):
        now += gap / TICKS
        changes.append((now, way / TICKS, FIRST + offset))
        if beats and draw(st.booleans()):
            signs.append((now, draw(st.integers(0, int(GRACE * TICKS))) / TICKS, FIRST + offset))
    return Traffic(changes, signs)


# --- no false alarm


@given(traffic(beats=False))
def test_changes_that_overtake_each_other_within_the_grace_are_no_gap(sent: Traffic) -> None:
    heard, gaps = heard_all(sent.deliveries())
    assert gaps == []
    assert heard == Heard(sent.changes[-1][2])


@given(traffic(beats=True))
@settings(max_examples=300)
def test_beats_among_them_that_overtake_or_are_overtaken_are_no_gap_either(sent: Traffic) -> None:
    """On a cluster, messages that different nodes publish take different ways."""
    _, gaps = heard_all(sent.deliveries())
    assert gaps == []


def test_the_first_message_is_where_hearing_begins() -> None:
    assert hear(Heard(), change(FIRST), BEGIN) == (Heard(FIRST), False)
    assert hear(Heard(), beat(FIRST), BEGIN) == (Heard(FIRST), False)


@pytest.mark.parametrize("late", [FIRST - 1, FIRST - 1000])
def test_what_was_sent_before_hearing_began_is_no_gap(late: int) -> None:
    assert hear(Heard(FIRST), change(late), BEGIN) == (Heard(FIRST), False)


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_signs_of_life_alone_are_no_gap_however_long_it_is_quiet(pauses: list[int]) -> None:
    now, deliveries = BEGIN, [(BEGIN, change(FIRST))]
    for pause in pauses:
        now += pause
        deliveries.append((now, beat(FIRST)))
    assert heard_all(deliveries) == (Heard(FIRST), [])


def test_a_message_that_comes_twice_is_no_gap() -> None:
    numbers = [0, 1, 1, 0, 3, 3, 2, 2, 4, 3, 4]
    heard, gaps = heard_all([(BEGIN + index / TICKS, change(FIRST + number)) for index, number in enumerate(numbers)])
    assert (heard, gaps) == (Heard(FIRST + 4), [])


# --- every loss is noticed


@given(traffic(beats=False), st.data())
@settings(max_examples=300)
def test_a_lost_number_is_reported_once_a_later_one_was_heard_and_the_grace_has_passed(
    sent: Traffic, data: st.DataObject
) -> None:
    """Whatever fills other holes meanwhile, the first sign of life after that reports it."""
    numbers = [number for _, _, number in sent.changes]
    lost = data.draw(st.sets(st.sampled_from(numbers[1:-1]), min_size=1))
    deliveries = sent.deliveries(frozenset(lost))
    last = deliveries[-1][0]
    deliveries.append((last + GRACE + 1 / TICKS, beat(numbers[-1])))
    heard, gaps = heard_all(deliveries)
    assert gaps
    assert heard == Heard(numbers[-1])


@given(traffic(beats=False), st.data())
def test_loss_of_the_last_numbers_is_reported_by_the_second_sign_of_life(sent: Traffic, data: st.DataObject) -> None:
    """The first one tells that there was a number; from then on the message has its grace."""
    numbers = [number for _, _, number in sent.changes]
    lost = frozenset(numbers[-data.draw(st.integers(1, len(numbers) - 1)) :])
    deliveries = sent.deliveries(lost)
    first = deliveries[-1][0] + data.draw(st.integers(0, 1000))
    deliveries.append((first, beat(numbers[-1])))
    deliveries.append((first + GRACE + 1 / TICKS, beat(numbers[-1])))
    heard, gaps = heard_all(deliveries)
    assert gaps == [first + GRACE + 1 / TICKS]
    assert heard == Heard(numbers[-1])


def test_a_loss_that_a_sign_of_life_told_of_stays_known_while_others_arrive() -> None:
    """Two are sent and then the sign of life, which overtakes both; the first arrives and the second never does."""
    deliveries = [
        (BEGIN, change(FIRST)),
        (BEGIN + 0.25, beat(FIRST + 2)),
        (BEGIN + 0.5, change(FIRST + 1)),
        (BEGIN + 5.25, beat(FIRST + 2)),
    ]
    assert heard_all(deliveries) == (Heard(FIRST + 2), [BEGIN + 5.25])


@given(st.integers(0, 2 * TICKS))
def test_a_hole_counts_after_the_grace_and_not_before(after: int) -> None:
    now = BEGIN + after / TICKS
    _, gaps = heard_all([(BEGIN, change(FIRST)), (BEGIN, change(FIRST + 2)), (now, change(FIRST + 3))])
    assert gaps == ([now] if after > GRACE * TICKS else [])


def test_a_loss_is_reported_once() -> None:
    deliveries = [(BEGIN, change(FIRST)), (BEGIN, change(FIRST + 2))]
    deliveries += [(BEGIN + GRACE + step, beat(FIRST + 2)) for step in range(1, 10)]
    assert heard_all(deliveries) == (Heard(FIRST + 2), [BEGIN + GRACE + 1])


def test_numbers_that_have_begun_anew_are_a_loss() -> None:
    """The server forgot all it had, and its clock went back; nothing that was heard before counts."""
    quiet = BEGIN + 10 * GRACE
    assert hear(Heard(FIRST), beat(5), quiet) == (Heard(5), True)


def test_however_much_is_missing_little_is_remembered() -> None:
    heard, now = Heard(FIRST), BEGIN
    lost = False
    for number in range(FIRST + 2, FIRST + 10_100):
        heard, gap = hear(heard, change(number), now)
        lost |= gap
        assert len(heard.ahead) <= 10_000
    assert lost


@given(
    st.builds(
        Heard,
        upto=st.integers(-1, 20),
        ahead=st.frozensets(st.integers(22, 40), max_size=5),
        since=st.just(0.0) | st.floats(900, 1000),
    ),
    st.integers(0, 50),
    st.sampled_from(("keys", "tags", "soft", "beat")),
    st.floats(1000, 1100),
)
def test_hearing_never_goes_back_without_saying_so(heard: Heard, number: int, kind: Kind, now: float) -> None:
    after, gap = hear(heard, Message(number, "n", kind), now)
    assert gap or after.upto >= heard.upto
    assert all(ahead > after.upto + 1 for ahead in after.ahead)


# --- bytes


messages = st.builds(
    Message,
    number=st.integers(0, 10**20 - 1),
    node=st.text(alphabet=st.characters(), max_size=10),
    kind=st.sampled_from(("keys", "tags", "soft", "beat")),
    names=st.lists(st.text(alphabet=st.characters(), max_size=10), max_size=5).map(tuple),
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(messages)
def test_decoding_inverts_encoding(message: Message) -> None:
    data = b"%d %b" % (message.number, encode(message.node, message.kind, message.names))
    assert decode(data) == message


@given(st.binary() | st.binary().map(lambda tail: b"5 " + tail))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    found = decode(data)
    assert found is None or isinstance(found, Message)


@given(st.lists(plain, max_size=4) | plain)
def test_any_packed_values_are_a_message_or_none(values: object) -> None:
    found = decode(b"5 " + packb(values))
    assert found is None or isinstance(found, Message)


@given(plain, plain, st.sampled_from(("node", "kind", "names")))
def test_of_the_right_shape_with_anything_in_it_likewise(one: object, another: object, where: str) -> None:
    parts: dict[str, list[object]] = {
        "node": [one, "keys", "k"],
        "kind": ["n", one, another],
        "names": ["n", "tags", one, another],
    }
    found = decode(b"5 " + packb(parts[where]))
    assert found is None or (type(found.node) is str and all(type(name) is str for name in found.names))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"5",
        b"5 ",
        b" " + encode("n", "beat"),
        b"-5 " + encode("n", "beat"),
        b"+5 " + encode("n", "beat"),
        b"5.0 " + encode("n", "beat"),
        b"1_0 " + encode("n", "beat"),
        "٥ ".encode() + encode("n", "beat"),
        b"5  " + encode("n", "beat"),
        b"5 " + encode("n", "beat") + b"\x00",
        b"9" * 21 + b" " + encode("n", "beat"),
        b"9" * 5000 + b" " + encode("n", "beat"),
        b"5 " + packb(["n"]),
        b"5 " + packb(["n", "gossip"]),
        b"5 " + packb(["n", None]),
        b"5 " + packb(["n", ["keys"]]),
        b"5 " + packb(["n", {}]),
        b"5 " + packb([1, "keys", "k"]),
        b"5 " + packb(["n", "keys", 1]),
        b"5 " + packb(["n", "keys", ["k"]]),
        b"5 " + packb([b"n", b"keys"]),
        b"5 " + packb({"n": 1, "keys": 2}),
        b"5 " + packb(7),
        b"5 " + b"\x91" * 5000,
    ],
    ids=lambda data: repr(data[:24]),
)
def test_what_is_no_message_of_ours_is_none(data: bytes) -> None:
    """Whoever can publish may send anything."""
    assert decode(data) is None


# --- how long a sign of life takes


def test_one_that_comes_back_is_timed() -> None:
    echo = Echo()
    echo.sent(1.0)
    assert echo.heard(1.25) == 0.25
    echo.sent(2.0)
    assert echo.heard(2.5) == 0.5


def test_those_that_take_longer_than_a_heartbeat_are_not_mixed_up() -> None:
    """Else a slow one would be taken for the next one, and look quick."""
    echo = Echo()
    echo.sent(1.0)
    echo.sent(2.0)
    assert echo.heard(2.5) == 1.5
    echo.sent(3.0)
    assert echo.heard(3.25) == 1.25
    assert echo.heard(3.5) == 0.5
    assert echo.heard(4.0) is None


@pytest.mark.parametrize("came", [False, True])
def test_after_one_that_may_have_been_sent_or_not_the_next_is_not_timed(came: bool) -> None:
    echo = Echo()
    echo.sent(1.0)
    echo.failed()
    if came:
        assert echo.heard(1.5) is None
    echo.sent(2.0)
    assert echo.heard(2.5) is None
    echo.sent(3.0)
    assert echo.heard(3.5) == 0.5


def test_what_was_sent_before_a_subscription_is_not_waited_for() -> None:
    echo = Echo()
    echo.sent(1.0)
    echo.begin_anew()
    echo.sent(2.0)
    assert echo.heard(2.5) == 0.5
