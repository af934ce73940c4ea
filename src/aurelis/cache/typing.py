"""Protocols that other code may implement, and the types they speak in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

from ._clock import Clock
from ._decisions import Bypass, Confirm, Discard, Follow, Load, Lookup, Pass, Record, Refuse, Reraise, Serve, Store
from ._decorated import CachedFunction, CachedMethod, CachedSyncFunction, CachedSyncMethod
from ._entry import Details, Entry

Q_contra = TypeVar("Q_contra", contravariant=True)
H_contra = TypeVar("H_contra", contravariant=True)
R_contra = TypeVar("R_contra", contravariant=True)


class Policy(Protocol[Q_contra, R_contra]):
    """The rules of one kind of request, as pure functions; the engine carries out what they answer.

    `Q` is the request, `R` the loaded result. Nothing here waits, reads a clock or draws random numbers.
    """

    def key(self, request: Q_contra) -> str:
        """The key to look under first."""
        ...

    def on_lookup(self, request: Q_contra, entry: Entry | None, now: float) -> Lookup:
        """What to do with what was found (`None`: nothing). `now` is monotonic, in seconds."""
        ...

    def on_loaded(self, request: Q_contra, loaded: R_contra) -> Store | Discard:
        """Whether, where and how long to keep a loaded result."""
        ...

    def on_error(self, request: Q_contra, entry: Entry | None, error: BaseException, now: float) -> Serve | Reraise:
        """What the callers get when the load failed. `entry` is what was found before, perhaps stale."""
        ...


class Terminator(Protocol):
    """Watches a body for the end that its own protocol defines.

    Attributes:
        is_near: all has been said but the end itself, as far as can be told without reading everything.
    """

    @property
    def is_near(self) -> bool: ...

    def feed(self, chunk: bytes) -> bool:
        """Take the next chunk; true once the end has been seen. Any split into chunks gives the same answer."""
        ...


class ExchangePolicy(Policy[Q_contra, R_contra], Protocol[Q_contra, H_contra, R_contra]):
    """Rules for responses whose head comes before the body. `H` is the head."""

    def on_response(self, request: Q_contra, head: H_contra, response_time: float) -> Record | Pass:
        """Whether the body is worth recording. `response_time` is in seconds since the epoch."""
        ...

    def on_shared(
        self, request: Q_contra, leader: Q_contra, head: H_contra, response_time: float
    ) -> Follow | Bypass | None:
        """Whether a request that waited for the load of another (of the same key) may have its response.

        `None`: it may. `Follow`: its own response has another key. `Bypass`: it must ask for itself.
        """
        ...

    def conditions(self, request: Q_contra, entry: Entry | None) -> Sequence[tuple[bytes, bytes]]:
        """Fields by which the load of a response asks whether what is stored still holds; empty: it just asks."""
        ...

    def on_validated(self, request: Q_contra, entry: Entry, loaded: R_contra) -> Confirm | None:
        """What follows from the answer to a question with `conditions`; `None`: it is an answer like any other.

        Its body is not in `loaded`, and not yet known.
        """
        ...

    def on_refused(self, request: Q_contra, entry: Entry | None, head: H_contra, now: float) -> Serve | None:
        """What stands in for a response that says that the origin has failed; `None`: nothing, or it does not."""
        ...

    def on_indexed(self, request: Q_contra, index: object, known: object) -> tuple[object, tuple[str, ...]]:
        """The index entry to keep in place of the known one, and keys whose entries must make room for the new one.

        Args:
            index: of the `Store`.
            known: what is under its key; `None`: nothing is known.
        """
        ...

    def terminator(self, request: Q_contra, head: H_contra) -> Terminator | None:
        """A watcher for protocols that announce their end in the body; `None`: the end of the body is the end."""
        ...


class Layer(Protocol):
    """A place where entries are kept, addressed by full key, which may be any string.

    The entries that it is given hold the value and its packed form. Those that it gives hold a value of the caller's
    own, with the packed form beside it if the value can be changed, and their size.

    A layer may raise anything when it is in trouble: the guard in front of it counts and contains it. The guard cancels
    what takes too long, and the layer is of use afterwards. `aurelis.cache.testing.LayerContract` tests all of this.
    """

    @property
    def name(self) -> str:
        """Short name for telemetry: `l1`, `l2`."""
        ...

    async def lookup(self, key: str) -> Entry | None:
        """The entry, or `None`. Never an expired one."""
        ...

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """The entries found, in one round trip where the layer is remote."""
        ...

    async def store(self, key: str, entry: Entry) -> None:
        """Keep the entry until it expires."""
        ...

    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        """Keep them all, in one round trip where the layer is remote."""
        ...

    async def remove(self, key: str) -> bool:
        """Forget the key; true if it was there and not expired."""
        ...

    async def remove_all(self) -> None:
        """Forget everything that belongs to this cache, and nothing of its neighbours."""
        ...

    async def aclose(self) -> None:
        """Give back connections. Closing twice is harmless."""
        ...


@dataclass(frozen=True, slots=True)
class Acquired:
    """The answer to a process that wants to load a key.

    Attributes:
        entry: what is stored.
        lease: of the process that loads; empty when there is an entry.
        own: the lease is the asker's.
        generation: the highest of all invalidations so far.
    """

    entry: Entry | None
    lease: bytes
    own: bool
    generation: int


@runtime_checkable
class SharedLayer(Layer, Protocol):
    """A layer that several processes share, which keeps order between them.

    It numbers changes: each `assign`, `take`, `announce` and `invalidate` gets the next generation, above all before.
    It keeps the generations of tags, the last hard and the last soft invalidation of each. And it knows who loads a
    key: a *lease* is a token under the key for a limited time. Whatever changes a key ends its lease, so the token is a
    fence, too: a result is stored only while the token that was there before the load began is still there.

    Layers below it keep entries that it may have lost. So that it can say what still counts there, each `assign`,
    `take`, `announce` and `discard` is a hard invalidation of the tags `k:KEY` of its keys, if they have a record.

    A manager stores here by `publish` and `assign` and removes by `take`; `store` need not end a lease.
    `aurelis.cache.testing.SharedLayerContract` tests all of this.
    """

    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        """What is stored or, if there is nothing or `again`, who loads: the asker if nobody else does.

        The lease lasts for `life` seconds. Its token is made of `own`, unlike that of any other load. One that this
        process has already is that of a load which it has given up, and is replaced.
        """
        ...

    async def renew(self, key: str, lease: bytes, life: float) -> bool:
        """Let the lease last for `life` more seconds; false if it is another's by now or has ended."""
        ...

    async def release(self, key: str, lease: bytes) -> None:
        """End the lease, if it is still this one."""
        ...

    async def publish(self, key: str, lease: bytes, entries: Mapping[str, Entry], *, release: bool) -> bool:
        """Keep the entries if the key's lease is still this one, which need not be the asker's; whether it was.

        With `release` the lease ends.
        """
        ...

    async def assign(self, entries: Mapping[str, Entry]) -> int:
        """Keep the entries whatever is loaded meanwhile, and tell other processes; returns their generation."""
        ...

    async def take(self, key: str) -> Entry | None:
        """Forget the key whatever is loaded meanwhile, and tell other processes; returns what was there."""
        ...

    async def announce(self, keys: Sequence[str]) -> int:
        """Tell other processes that these keys were changed; returns the generation of that."""
        ...

    async def generations(self, tags: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """The last hard and soft invalidation of all these tags.

        For a tag without a record it is now, which becomes its record: what it had before may have been lost.
        """
        ...

    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        """Give the tags the next generation, above `known`, and tell other processes; returns it.

        Of a tag without a record a soft invalidation is a hard one, too.
        """
        ...


@runtime_checkable
class SearchableLayer(Protocol):
    """A layer whose keys can be looked through. `aurelis.cache.testing.SearchableLayerContract` tests it."""

    def keys(self, start: str) -> AsyncGenerator[list[str], None]:
        """The keys whose `category:identifier` begins with `start`, and perhaps others, one round trip a batch."""
        ...

    async def discard(self, keys: Sequence[str]) -> int:
        """Forget the keys whatever is loaded meanwhile, and tell other processes; returns how many there were."""
        ...


Kind = Literal["keys", "tags", "soft", "beat"]
"""What a message is about: keys or tags that were changed, tags that were made stale, or nothing but its sender."""


@dataclass(frozen=True, slots=True)
class Message:
    """Word of a change, from one process to all.

    Attributes:
        number: its generation; of a `beat`, that of the last change.
        node: who sends it.
        kind: `keys` or `tags` were changed; `soft`: tags were made stale; `beat`: a sign of life.
        names: of the keys or tags.
    """

    number: int
    node: str
    kind: Kind
    names: tuple[str, ...] = ()


@runtime_checkable
class Newsroom(Protocol):
    """A shared layer that carries word of changes. `aurelis.cache.testing.NewsroomContract` tests it.

    Each change has one message with its generation, and all who listen get it, the sender too, once the change is done.
    So who hears all numbers has missed nothing. Messages may overtake each other and come twice.
    """

    @property
    def node(self) -> str:
        """Name of this process there."""
        ...

    @property
    def own_thread(self) -> bool:
        """Whether it can be listened to in a thread of its own; otherwise the first event loop that asks listens.

        Then the layer is used by several threads at once, each with an event loop of its own.
        """
        ...

    def news(self) -> AsyncGenerator[Message | None, None]:
        """Messages as they come; `None` when a subscription begins. Raises anything when it ends."""
        ...

    async def beat(self) -> None:
        """Send a sign of life, which repeats the last number and comes back as a message."""
        ...


class ModelResponse(Protocol):
    """An answer of a model, as `ModelResponseCache` keeps it: any object that the cache can store, with a status."""

    @property
    def status(self) -> object:
        """How it went: a str, or an `Enum` of str. `error`: it is not to be kept."""
        ...


class Embedder(Protocol):
    """Makes vectors of texts, such that what means the same is near to each other. `SimilarityCache` takes one."""

    @property
    def name(self) -> str:
        """Which vectors these are: the model and all else that changes them. Those of another name are never compared.

        It becomes part of keys, so it must not be a secret.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector for each text, in their order, all of one number of dimensions. May raise anything."""
        ...


__all__ = [
    "Acquired",
    "Bypass",
    "CachedFunction",
    "CachedMethod",
    "CachedSyncFunction",
    "CachedSyncMethod",
    "Clock",
    "Confirm",
    "Details",
    "Discard",
    "Embedder",
    "Entry",
    "ExchangePolicy",
    "Follow",
    "Kind",
    "Layer",
    "Load",
    "Lookup",
    "Message",
    "ModelResponse",
    "Newsroom",
    "Pass",
    "Policy",
    "Record",
    "Refuse",
    "Reraise",
    "SearchableLayer",
    "Serve",
    "SharedLayer",
    "Store",
    "Terminator",
]
