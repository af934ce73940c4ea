"""Support for tests of code that uses a cache, and of layers of one's own.

* `ManualClock`: time that moves only when it is told to.
* `SharedMemory`: what several managers of one event loop share, in place of Redis.
* `Chaos`, `Faults`, `ChaosLayer`, `ChaosSharedLayer`: layers and messages that fail as they do in production.
* `Cassette`: calls of HTTP clients, recorded once and replayed; `UnmatchedCallError`: one was not recorded.
* `LayerContract`, `SearchableLayerContract`, `SharedLayerContract`, `NewsroomContract`: the tests that a layer must
  pass, to be inherited by tests of its own.
"""

from ._chaos import Chaos, ChaosLayer, ChaosSharedLayer, Faults
from ._layer_contract import LayerContract
from ._newsroom_contract import NewsroomContract
from ._searchable_contract import SearchableLayerContract
from ._shared import SharedMemory, SharedNode
from ._shared_contract import SharedLayerContract
from ._time import ManualClock
from .cassettes import Cassette, CassetteError, UnmatchedCallError

__all__ = [
    "Cassette",
    "CassetteError",
    "Chaos",
    "ChaosLayer",
    "ChaosSharedLayer",
    "Faults",
    "LayerContract",
    "ManualClock",
    "NewsroomContract",
    "SearchableLayerContract",
    "SharedLayerContract",
    "SharedMemory",
    "SharedNode",
    "UnmatchedCallError",
]
