"""What OpenTelemetry's SDK has kept of its instruments, in a forked child that has got a copy of it.

The SDK gives a child a new instance of the service and an exporting thread, but leaves in place what the parent has
recorded. So a child would report its parent's durations a second time; and where differences are exported, it would
subtract from its counts, which begin at zero, what the parent had counted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any


def forget(instruments: Iterable[Any]) -> None:
    """Have the SDK begin the series of these instruments anew.

    The SDK offers no way to do it, so this reaches for the places where it keeps them, and leaves everything as it is
    where another release, or another SDK, has no such places.

    Args:
        instruments: of the API or of the SDK; `Any`, since what is looked for is in no interface.
    """
    for instrument in instruments:
        # The API gives a proxy for an instrument that was made before the provider was set.
        real = getattr(instrument, "_real_instrument", instrument)
        storages = getattr(getattr(real, "_measurement_consumer", None), "_reader_storages", None)
        for storage in storages.values() if isinstance(storages, dict) else ():
            kept = getattr(storage, "_instrument_view_instrument_matches", None)
            if isinstance(kept, dict) and hasattr(storage, "_lock"):
                # Whoever records next takes it, to make the series again, and a thread of the parent may have held it.
                storage._lock = threading.RLock()
                kept.pop(real, None)
