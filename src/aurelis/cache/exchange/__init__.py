"""What the integrations stand on: requests answered by responses with a head and a body, through the one engine.

An integration translates its framework's request into a record that a policy understands, asks `peek` (which never
waits) and, when nothing is at hand, `open` or `open_blocking`. It gets one of a few answers and translates back.
"""

from aurelis.cache._recording import Reader, ReaderClosed, WaitTimeout

from ._answers import Alone, Forwarded, Hit, Live, Pending, Refused
from ._exchange import DEFAULT_MAX_BODY_BYTES, Exchange
from ._heeding import Heeding, Upload
from ._items import Gathered, Items
from ._leading import Lead
from ._loads import MAX_REFRESHES
from ._party import Ask, Declined, Parts
from ._purging import Purging, StoredEntry
from ._recorder import Recorder

__all__ = [
    "DEFAULT_MAX_BODY_BYTES",
    "MAX_REFRESHES",
    "Alone",
    "Ask",
    "Declined",
    "Exchange",
    "Forwarded",
    "Gathered",
    "Heeding",
    "Hit",
    "Items",
    "Lead",
    "Live",
    "Parts",
    "Pending",
    "Purging",
    "Reader",
    "ReaderClosed",
    "Recorder",
    "Refused",
    "StoredEntry",
    "Upload",
    "WaitTimeout",
]
