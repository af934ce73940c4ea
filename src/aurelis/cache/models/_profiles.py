"""The table of model protocols: one record for each operation that is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from . import _anthropic, _cohere, _gemini, _ollama, _openai
from ._answer import AnswerSummary, Dialect, Document, StreamTerminator, read_answer, read_stream
from ._canonicalise import BodyRules
from ._item_rules import COHERE, GEMINI_BATCH, OLLAMA, OPENAI, item_of_gemini
from ._items import ItemRules
from ._splitting import ArraySplitter, EventSplitter, LineSplitter, Splitter

JSON: Final = b"application/json"
EVENT_STREAM: Final = b"text/event-stream"

_EVENTS: Final[Mapping[bytes, Callable[[], Splitter]]] = {EVENT_STREAM: EventSplitter}
_EVENTS_OR_ARRAY: Final[Mapping[bytes, Callable[[], Splitter]]] = {EVENT_STREAM: EventSplitter, JSON: ArraySplitter}
_LINES: Final[Mapping[bytes, Callable[[], Splitter]]] = {b"application/x-ndjson": LineSplitter}


def _temperature(body: Document) -> object:
    return body.get("temperature")


def _one(body: Document) -> int:
    return 1


def _for_ever(body: Document) -> float:
    return math.inf


def _while_kept(body: Document) -> float:
    """An answer that the provider keeps under its id, as it does unless it is told, must not outlive that: 30 days."""
    return math.inf if body.get("store") is False else 30 * 86_400.0


def _one_hour(body: Document) -> float:
    """Images may be addresses that are valid for an hour."""
    return 3600.0


@dataclass(frozen=True, slots=True)
class Profile:
    """One operation of one protocol: how to know a call, what its key is made of, when its answer is whole.

    Attributes:
        name: of the protocol, as it stands in keys: `openai`.
        operation: what the call asks for: `chat`.
        path_suffix: end of the path of its URLs, on whatever host.
        admits: whether a body is a call of this kind that a cache may answer.
        dialect: how its answers are read.
        body: what of the body has no part in the key.
        key_fields: request fields that are part of the key, in lower case.
        streams: what a stream may come as: how it is taken apart, by media type.
        streamed: whether the answer is a stream; `None`: the body's `stream` says it.
        media_types: of answers that are no streams; one that ends in `/` stands for all that begin so.
        documents: such an answer is JSON, and is read. Otherwise it is whole if it has come whole.
        model_in_path: the model is named by the path, before a colon.
        temperature: what a body says of it.
        default_temperature: what it is where a body says nothing; `None`: nothing is drawn at random.
        choices: how many answers a body asks for, where the end of a stream depends on it.
        longest: seconds for which an answer to such a body may be kept at most.
        items: how calls for several things at once are taken apart; `None`: there are no such calls.
        item: of a call that asks for one of the things that others ask for several of: which one, of this model.
    """

    name: str
    operation: str
    path_suffix: str
    admits: Callable[[Document], bool]
    dialect: Dialect
    body: BodyRules = field(default_factory=BodyRules)
    key_fields: tuple[bytes, ...] = ()
    streams: Mapping[bytes, Callable[[], Splitter]] = field(default_factory=dict)
    streamed: bool | None = False
    media_types: tuple[bytes, ...] = (JSON,)
    documents: bool = True
    model_in_path: bool = False
    temperature: Callable[[Document], object] = _temperature
    default_temperature: float | None = None
    choices: Callable[[Document], int] = _one
    longest: Callable[[Document], float] = _for_ever
    items: ItemRules | None = None
    item: Callable[[Document, str], object] | None = None

    def terminator(
        self, media_type: bytes, choices: int = 1, keep: Collection[str] = frozenset()
    ) -> StreamTerminator | None:
        """The watcher for the end of a stream of this media type; `None`: there are no such streams."""
        splitter = self.streams.get(media_type)
        return None if splitter is None else StreamTerminator(self.dialect, splitter(), choices, keep)

    def read_stream(self, media_type: bytes, chunks: tuple[bytes, ...]) -> AnswerSummary:
        """Summary of a stream of one of its media types. Never raises."""
        return read_stream(self.dialect, self.streams[media_type](), chunks)

    def read_answer(self, body: bytes) -> AnswerSummary:
        """Summary of an answer that is no stream. Never raises."""
        if self.documents:
            return read_answer(self.dialect, body)
        return AnswerSummary(complete=True, finished=True, answered=bool(body))


# Gateways in front of several providers are told by these where the call is to go.
_GATEWAY_FIELDS = (
    *(b"x-portkey-config", b"x-portkey-provider", b"x-portkey-custom-host"),
    *(b"helicone-target-url", b"helicone-target-provider"),
)
_OPENAI_FIELDS = (b"openai-organization", b"openai-project", b"openai-beta", *_GATEWAY_FIELDS)
_ANTHROPIC_FIELDS = (
    *(b"anthropic-version", b"anthropic-beta", b"anthropic-workspace-id", b"anthropic-user-profile-id"),
    *_GATEWAY_FIELDS,
)
_GOOGLE_FIELDS = (b"x-goog-user-project", *_GATEWAY_FIELDS)

_OPENAI_BODY = BodyRules(
    ignored=("metadata", "prompt_cache_key", "prompt_cache_retention"),
    of_user=("user", "safety_identifier"),
    ignored_within=(("stream_options", "include_obfuscation"),),
    stream_default=False,
)

OPENAI_CHAT = Profile(
    "openai",
    "chat",
    "/chat/completions",
    _openai.admits_chat,
    _openai.CHAT,
    body=_OPENAI_BODY,
    key_fields=_OPENAI_FIELDS,
    streams=_EVENTS,
    streamed=None,
    default_temperature=1.0,
    choices=_openai.choices,
)
_OPENAI_COMPLETIONS = replace(
    OPENAI_CHAT, operation="completions", path_suffix="/completions", admits=_openai.admits_completion
)
_OPENAI_RESPONSES = replace(
    OPENAI_CHAT,
    operation="responses",
    path_suffix="/responses",
    admits=_openai.admits_response,
    dialect=_openai.RESPONSES,
    # Its answers repeat the fields that name the caller and what the call was for: they do count.
    body=BodyRules(ignored_within=_OPENAI_BODY.ignored_within, stream_default=False),
    longest=_while_kept,
)
_OPENAI_EMBEDDINGS = Profile(
    "openai",
    "embeddings",
    "/embeddings",
    _openai.admits_embeddings,
    _openai.EMBEDDINGS,
    body=BodyRules(of_user=_OPENAI_BODY.of_user),
    key_fields=_OPENAI_FIELDS,
    items=OPENAI,
)
_OPENAI_MODERATION = Profile(
    "openai",
    "moderation",
    "/moderations",
    _openai.admits_moderation,
    _openai.MODERATION,
    key_fields=_OPENAI_FIELDS,
)
_OPENAI_IMAGES = Profile(
    "openai",
    "images",
    "/images/generations",
    _openai.admits_image,
    _openai.IMAGES,
    body=BodyRules(of_user=_OPENAI_BODY.of_user),
    key_fields=_OPENAI_FIELDS,
    default_temperature=1.0,
    longest=_one_hour,
)
_OPENAI_SPEECH = Profile(
    "openai",
    "speech",
    "/audio/speech",
    _openai.admits_speech,
    _openai.SPEECH,
    key_fields=_OPENAI_FIELDS,
    media_types=(b"audio/", b"application/octet-stream"),
    documents=False,
)

_ANTHROPIC_MESSAGES = Profile(
    "anthropic",
    "messages",
    "/messages",
    _anthropic.admits,
    _anthropic.MESSAGES,
    body=BodyRules(of_user=("metadata",), stream_default=False),  # which holds nothing but an id of the user
    key_fields=_ANTHROPIC_FIELDS,
    streams=_EVENTS,
    streamed=None,
    default_temperature=1.0,
)
_ANTHROPIC_ON_VERTEX = replace(
    _ANTHROPIC_MESSAGES,
    operation="rawPredict",
    path_suffix=":rawPredict",
    admits=_anthropic.admits_on_vertex,
    key_fields=_ANTHROPIC_FIELDS + _GOOGLE_FIELDS,
    model_in_path=True,
)
_ANTHROPIC_STREAM_ON_VERTEX = replace(
    _ANTHROPIC_ON_VERTEX, operation="streamRawPredict", path_suffix=":streamRawPredict", streamed=True
)

_GEMINI_CONTENT = Profile(
    "gemini",
    "generateContent",
    ":generateContent",
    _gemini.admits_content,
    _gemini.CONTENT,
    body=BodyRules(ignored=("labels",)),  # of the bill
    key_fields=_GOOGLE_FIELDS,
    model_in_path=True,
    temperature=_gemini.temperature,
    default_temperature=1.0,
    longest=_gemini.longest,
)
_GEMINI_STREAM = replace(
    _GEMINI_CONTENT,
    operation="streamGenerateContent",
    path_suffix=":streamGenerateContent",
    streams=_EVENTS_OR_ARRAY,
    streamed=True,
    choices=_gemini.choices,
)
_GEMINI_EMBEDDING = Profile(
    "gemini",
    "embedContent",
    ":embedContent",
    _gemini.admits_embedding,
    _gemini.EMBEDDINGS,
    key_fields=_GOOGLE_FIELDS,
    model_in_path=True,
    item=item_of_gemini,
)
_GEMINI_EMBEDDINGS = replace(
    _GEMINI_EMBEDDING,
    operation="batchEmbedContents",
    path_suffix=":batchEmbedContents",
    admits=_gemini.admits_embeddings,
    items=GEMINI_BATCH,
    item=None,
)
_GEMINI_PREDICTION = replace(
    _GEMINI_EMBEDDING,
    operation="predict",
    path_suffix=":predict",
    admits=_gemini.admits_prediction,
    dialect=_gemini.PREDICTIONS,
    item=None,
)

_COHERE_CHAT = Profile(
    "cohere",
    "chat",
    "/v2/chat",
    _cohere.admits_chat,
    _cohere.CHAT,
    body=BodyRules(stream_default=False),
    key_fields=_GATEWAY_FIELDS,
    streams=_EVENTS,
    streamed=None,
    default_temperature=0.3,
)
_COHERE_EMBED = Profile(
    "cohere", "embed", "/v2/embed", _cohere.admits_embed, _cohere.LIST, key_fields=_GATEWAY_FIELDS, items=COHERE
)
_COHERE_RERANK = replace(
    _COHERE_EMBED, operation="rerank", path_suffix="/v2/rerank", admits=_cohere.admits_rerank, items=None
)

_OLLAMA_CHAT = Profile(
    "ollama",
    "chat",
    "/api/chat",
    _ollama.admits_chat,
    _ollama.LINES,
    body=BodyRules(ignored=("keep_alive",), stream_default=True),
    streams=_LINES,
    streamed=None,
    temperature=_ollama.temperature,
    default_temperature=0.8,
)
_OLLAMA_GENERATE = replace(
    _OLLAMA_CHAT, operation="generate", path_suffix="/api/generate", admits=_ollama.admits_generate
)
_OLLAMA_EMBED = Profile(
    "ollama",
    "embed",
    "/api/embed",
    _ollama.admits_embed,
    _ollama.EMBEDDINGS,
    body=BodyRules(ignored=("keep_alive",)),
    items=OLLAMA,
)
_OLLAMA_EMBEDDINGS = replace(
    _OLLAMA_EMBED, operation="embeddings", path_suffix="/api/embeddings", admits=_ollama.admits_embeddings, items=None
)

PROFILES: Final[tuple[Profile, ...]] = (
    # Of those whose path fits, the first that admits the body has the call. Azure OpenAI and Mistral have the paths and
    # bodies of OpenAI, as have vLLM, LM Studio, llama.cpp, OpenRouter, Groq and many more.
    OPENAI_CHAT,
    _OPENAI_COMPLETIONS,
    _OPENAI_RESPONSES,
    _OLLAMA_EMBEDDINGS,
    _OPENAI_EMBEDDINGS,
    _ANTHROPIC_MESSAGES,
    _ANTHROPIC_ON_VERTEX,
    _ANTHROPIC_STREAM_ON_VERTEX,
    _GEMINI_CONTENT,
    _GEMINI_STREAM,
    _GEMINI_EMBEDDING,
    _GEMINI_EMBEDDINGS,
    _GEMINI_PREDICTION,
    _COHERE_CHAT,
    _COHERE_EMBED,
    _COHERE_RERANK,
    _OLLAMA_CHAT,
    _OLLAMA_GENERATE,
    _OLLAMA_EMBED,
)
"""Those that are always known."""

OPTIONAL: Final[Mapping[str, tuple[Profile, ...]]] = {
    "audio": (_OPENAI_SPEECH,),
    "images": (_OPENAI_IMAGES,),
    "moderation": (_OPENAI_MODERATION,),
}
"""Those that must be opted in, by the name of their kind."""
