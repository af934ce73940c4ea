"""Pure rules for language-model calls: which requests they are, their key, when an answer may be kept."""

from ._answer import AnswerSummary, Dialect, StreamTerminator
from ._apart import apart
from ._canonicalise import BodyRules, canonical_body, parse_object
from ._catalogue import Catalogue
from ._cost import BilledCall, Cost, Price
from ._items import Batch, ItemRules
from ._partition import (
    clean_url,
    credential_partition,
    credentials,
    identifies_caller,
    partition,
    pattern_without_credentials,
    selecting_fields,
    without_credentials,
)
from ._policy import CATEGORY, KEEPABLE, ModelPolicy, ModelRequest
from ._pricing import pricing
from ._profiles import OPENAI_CHAT, OPTIONAL, PROFILES, Profile
from ._recognise import ModelCall, recognise
from ._replay import ORIGINAL_REQUEST_ID, replay_fields
from ._reported import reported_usage
from ._splitting import ArraySplitter, EventSplitter, Frame, LineSplitter, Splitter
from ._usage import UNKNOWN, Usage

__all__ = [
    "CATEGORY",
    "KEEPABLE",
    "OPENAI_CHAT",
    "OPTIONAL",
    "ORIGINAL_REQUEST_ID",
    "PROFILES",
    "UNKNOWN",
    "AnswerSummary",
    "ArraySplitter",
    "Batch",
    "BilledCall",
    "BodyRules",
    "Catalogue",
    "Cost",
    "Dialect",
    "EventSplitter",
    "Frame",
    "ItemRules",
    "LineSplitter",
    "ModelCall",
    "ModelPolicy",
    "ModelRequest",
    "Price",
    "Profile",
    "Splitter",
    "StreamTerminator",
    "Usage",
    "apart",
    "canonical_body",
    "clean_url",
    "credential_partition",
    "credentials",
    "identifies_caller",
    "parse_object",
    "partition",
    "pattern_without_credentials",
    "pricing",
    "recognise",
    "replay_fields",
    "reported_usage",
    "selecting_fields",
    "without_credentials",
]
