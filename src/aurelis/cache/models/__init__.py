"""Pure rules for language-model calls: which requests they are, their key, when an answer may be kept."""

from ._answer import AnswerSummary, read_chat_answer
from ._canonicalise import BodyRules, canonical_body, parse_object
from ._partition import clean_url, credential_partition, partition, selecting_fields
from ._policy import CATEGORY, ModelPolicy, ModelRequest
from ._profiles import OPENAI_CHAT, PROFILES, Profile
from ._recognise import ModelCall, recognise
from ._replay import ORIGINAL_REQUEST_ID, replay_fields
from ._stream import ChatStreamTerminator, read_chat_stream
from ._usage import UNKNOWN, Usage, read_chat_usage

__all__ = [
    "CATEGORY",
    "OPENAI_CHAT",
    "ORIGINAL_REQUEST_ID",
    "PROFILES",
    "UNKNOWN",
    "AnswerSummary",
    "BodyRules",
    "ChatStreamTerminator",
    "ModelCall",
    "ModelPolicy",
    "ModelRequest",
    "Profile",
    "Usage",
    "canonical_body",
    "clean_url",
    "credential_partition",
    "parse_object",
    "partition",
    "read_chat_answer",
    "read_chat_stream",
    "read_chat_usage",
    "recognise",
    "replay_fields",
    "selecting_fields",
]
