"""Support for tests of code that uses a cache, and of layers of one's own.

* `ManualClock`: time that moves only when it is told to.
* `SharedMemory`: what several managers of one event loop share, in place of Redis.
* `Chaos`, `Faults`, `ChaosLayer`, `ChaosSharedLayer`: layers and messages that fail as they do in production.
"""

from ._chaos import Chaos, ChaosLayer, ChaosSharedLayer, Faults
from ._shared import SharedMemory, SharedNode
from ._time import ManualClock

__all__ = [
    "Chaos",
    "ChaosLayer",
    "ChaosSharedLayer",
    "Faults",
    "ManualClock",
    "SharedMemory",
    "SharedNode",
]
