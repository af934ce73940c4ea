"""Strategies: how a cache and the data store behind it are kept in step.

`CacheAside` leaves writing to the app, `WriteThrough` writes to the store and then to the cache, `WriteBehind` writes
to the cache and later, from a journal, to the store.
"""

from ._aside import CacheAside
from ._behind import WriteBehind
from ._letters import DeadLetter
from ._store import DataStore
from ._through import WriteThrough

__all__ = ["CacheAside", "DataStore", "DeadLetter", "WriteBehind", "WriteThrough"]
