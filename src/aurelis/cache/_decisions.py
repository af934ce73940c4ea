"""What a policy can answer: records that the engine carries out.

A policy is pure. It is asked four to five questions in the life of a request, and each answer is one of these records:

* before anything is known: a key;
* on lookup: `Serve`, `Load`, `Follow`, `Bypass` or `Refuse`;
* when the head of a response has come, before its body: `Record` or `Pass`;
* when the whole value has come: `Store` or `Discard`;
* when the origin was asked whether what is stored still holds, and says so: `Confirm`;
* when the load failed: `Serve` (something stale) or `Reraise`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ._entry import Entry


@dataclass(slots=True)
class Serve:
    """Answer with this entry.

    Not frozen: one is built for each hit in memory, and a frozen dataclass costs several times as much to build.

    Attributes:
        entry: what to serve.
        refresh: why it is to be loaded anew in the background: `early` (it is still fresh) or `revalidate` (it is not);
            empty: it is not.
        retry_in: of what stands in for a failed load: seconds for which it is served without trying again.
    """

    entry: Entry
    refresh: str = ""
    retry_in: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """Ask the origin; the result may be stored and shared with those who ask for the same key meanwhile.

    Attributes:
        reason: the `fwd` token of RFC 9211 §2.2: `uri-miss`, `vary-miss`, `miss`, `request`, `stale`, `partial`.
    """

    reason: str = "miss"


@dataclass(frozen=True, slots=True)
class Follow:
    """Look again under another key: the entry found is an index (RFC 9111 §4.1)."""

    key: str


@dataclass(frozen=True, slots=True)
class Bypass:
    """Ask the origin for this caller alone; nothing is answered from, stored in or shared by the cache.

    Attributes:
        reason: the `fwd` token of RFC 9211 §2.2: `bypass`, `method` or `request`.
        detail: short token for people, for instance `authorization`; never a value of the request.
    """

    reason: str = "bypass"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer that nothing is stored, without asking the origin (`only-if-cached`, RFC 9111 §5.2.1.7)."""


@dataclass(frozen=True, slots=True)
class Record:
    """Record the body while it passes; those who wait for the same key may share it.

    Attributes:
        lifetime: seconds of freshness that are known from the head; `None` where only the whole body decides.
        tags: names by which what is being recorded can be invalidated, in their internal form.
        max_body_bytes: larger bodies are not stored, > 0; `None`: the general limit.
        shared: those who wait for the same key may have it. Otherwise each asks for itself, and so do those who come
            later.
        left_out: names of header fields that are for nobody but the caller whose load it is.
        linger: seconds for which a body that has said all but its end is read on after its last reader has left; 0: it
            is not.
    """

    lifetime: float | None = None
    tags: tuple[str, ...] = ()
    max_body_bytes: int | None = None
    shared: bool = True
    left_out: frozenset[bytes] = frozenset()
    linger: float = 0.0


@dataclass(frozen=True, slots=True)
class Pass:
    """Let the body pass to the caller whose load it is, unrecorded; others ask for themselves.

    Attributes:
        reason: short token for people, for instance `no-store`, `set-cookie`, `status`.
        lasting: later responses under this key will probably be like it, so for a while nobody waits for another one's.
    """

    reason: str
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """Keep the value.

    Attributes:
        value: what to keep; storable by the codec.
        fresh_for: seconds, ≥ 0, may be infinite; 0: never used without asking the origin.
        stale_for: seconds after that in which it may still be of use, ≥ 0.
        index: key and value of an index entry to keep beside it (RFC 9111 §4.1), or `None`. The value itself then goes
            under `key`, which replaces the key that was asked for.
        key: where to keep the value; `None` means the key that was asked for.
        tags: names by which it can be invalidated, in their internal form.
    """

    value: object = field(repr=False)
    fresh_for: float
    stale_for: float = 0.0
    key: str | None = None
    index: tuple[str, object] | None = field(default=None, repr=False)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Confirm:
    """The origin says that what is stored still holds: answer with it.

    Attributes:
        value: what to answer with.
        fresh_for: seconds for which that is fresh; 0: not without asking again.
        store: what to keep in place of what is stored; `None`: that stays as it is.
    """

    value: object = field(repr=False)
    fresh_for: float
    store: Store | None


@dataclass(frozen=True, slots=True)
class Discard:
    """Keep nothing.

    Attributes:
        reason: short token for people and for the `store.result` attribute, for instance `truncated`.
        failure: what those who ask for the key get without another load for a while; `None`: nothing.
        remember_for: seconds of that while.
    """

    reason: str
    failure: object = field(default=None, repr=False)
    remember_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Reraise:
    """Hand the failure to the callers as it was.

    Attributes:
        remember_for: seconds for which those who ask for the key get it without another load.
        patience: seconds that whoever met it would have waited at most, where it is that it took longer: those who wait
            longer ask themselves. `None`: it is for all.
    """

    remember_for: float = 0.0
    patience: float | None = None


Lookup = Serve | Load | Follow | Bypass | Refuse
"""Answers on lookup."""
