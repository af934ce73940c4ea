"""What calls have cost: what answers say of it in each protocol, whose prices count, and what is not known."""

import logging
from decimal import Decimal
from typing import Any

import pytest

from aurelis.cache._decisions import Store
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.http import Fields, StoredResponse
from aurelis.cache.models import PROFILES, BilledCall, ModelPolicy, Usage
from tests.models.examples import DONE, JSON_HEADERS, STREAM_HEADERS, chat, completion, dump, event, loaded, request_for
from tests.models.wire import WIRES

PRICED = ModelPolicy(keys=lambda category, identifier: f"{category}:{identifier}", cost="genai-prices")
GATEWAY = "http://127.0.0.1:4000"


def details(name: str, document: object) -> dict[str, int]:
    """What of an answer has a price of its own."""
    protocol, operation = name.split("/")
    (profile,) = [one for one in PROFILES if (one.name, one.operation) == (protocol, operation)]
    return dict(profile.read_answer(dump(document)).usage.details)


# --- what answers say


def test_parts_with_a_price_of_their_own_are_read_in_each_protocol() -> None:
    usage: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 50}
    usage["prompt_tokens_details"] = {"cached_tokens": 60, "audio_tokens": 10}
    usage["completion_tokens_details"] = {"reasoning_tokens": 20, "audio_tokens": 0}
    assert details("openai/chat", completion(usage=usage)) == {
        "cache_read_tokens": 60,
        "input_audio_tokens": 10,
        "output_reasoning_tokens": 20,
    }
    response = WIRES["RESPONSES"].whole | {
        "usage": {
            "input_tokens": 100,
            "output_tokens": 50,
            "input_tokens_details": {"cached_tokens": 60},
            "output_tokens_details": {"reasoning_tokens": 20},
        }
    }
    assert details("openai/responses", response) == {"cache_read_tokens": 60, "output_reasoning_tokens": 20}
    message = WIRES["ANTHROPIC"].whole | {
        "usage": {
            "input_tokens": 1,
            "output_tokens": 50,
            "cache_read_input_tokens": 60,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        }
    }
    assert details("anthropic/messages", message) == {
        "cache_read_tokens": 60,
        "cache_write_tokens": 30,
        "cache_write_5m_tokens": 10,
        "cache_write_1h_tokens": 20,
    }
    metadata = {
        "promptTokenCount": 100,
        "candidatesTokenCount": 30,
        "thoughtsTokenCount": 20,
        "cachedContentTokenCount": 60,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 70},
            {"modality": "IMAGE", "tokenCount": 20},
            {"modality": "DOCUMENT", "tokenCount": 10},
            {"modality": "SMELL", "tokenCount": 1},
        ],
        "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 60}],
    }
    assert details("gemini/generateContent", WIRES["GEMINI"].whole | {"usageMetadata": metadata}) == {
        "cache_read_tokens": 60,
        "output_reasoning_tokens": 20,
        "input_text_tokens": 70,
        "input_image_tokens": 30,
        "cache_text_read_tokens": 60,
    }
    assert details("cohere/chat", WIRES["COHERE"].whole) == {"billed_input_tokens": 1, "billed_output_tokens": 2}
    assert details("cohere/rerank", WIRES["COHERE_RERANK"].whole) == {"rerank_searches": 1}
    assert details("ollama/chat", WIRES["OLLAMA_CHAT"].whole) == {}


@pytest.mark.parametrize("broken", [None, 1, "x", [], {"prompt_tokens_details": [1], "completion_tokens_details": 1}])
def test_what_is_no_usage_is_none(broken: object) -> None:
    assert details("openai/chat", completion(usage=broken)) == {}


def test_reasoning_beside_the_output_is_output_where_the_total_says_so() -> None:
    """As xAI reports it; where the total says nothing of the kind, it is part of the output."""
    (profile,) = [one for one in PROFILES if (one.name, one.operation) == ("openai", "chat")]
    for total, output in ((130, 30), (110, 10), (None, 10)):
        usage = {
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "total_tokens": total,
            "completion_tokens_details": {"reasoning_tokens": 20},
        }
        assert profile.read_answer(dump(completion(usage=usage))).usage.output_tokens == output


# --- the price list


def cost(
    body: object,
    answer: object,
    *,
    url: str = "https://api.openai.com/v1/chat/completions",
    policy: ModelPolicy = PRICED,
    chunks: tuple[bytes, ...] = (),
    headers: Fields = JSON_HEADERS,
) -> float | None:
    """What a stored answer has cost."""
    decision = policy.on_loaded(request_for(dump(body), url=url), loaded(*(chunks or (dump(answer),)), headers=headers))
    assert isinstance(decision, Store)
    assert isinstance(decision.value, StoredResponse)
    return decision.value.cost


def used(read: int | None, written: int | None, **more: Any) -> dict[str, Any]:
    """A chat completion of gpt-4o."""
    usage = {"prompt_tokens": read, "completion_tokens": written, **more.pop("parts", {})}
    return completion(model="gpt-4o-2024-08-06", usage=usage, **more)


GPT = chat(model="gpt-4o")
CACHED = {"prompt_tokens_details": {"cached_tokens": 600}}
REASONED = {"completion_tokens_details": {"reasoning_tokens": 40}}


@pytest.mark.parametrize(
    ("answer", "dollars"),
    [
        (used(1000, 100), 0.0035),  # 2.50 and 10 for a million
        (used(1000, 100, parts=CACHED), 0.00275),  # 1.25 of the provider's own cache
        (used(1000, 100, parts=REASONED), 0.0035),  # as any other output
        (used(0, 0), 0.0),
        (used(1000, None), None),
        (used(None, None), None),
        (used(100, 100, parts=CACHED), None),  # which contradicts itself
        (used(1000, 100, service_tier="default"), 0.0035),
        (used(1000, 100, service_tier="of another planet"), None),
        (completion(model="nobody-knows-it", usage={"prompt_tokens": 1, "completion_tokens": 1}), None),
    ],
)
def test_what_is_known_is_priced_and_nothing_else(answer: dict[str, Any], dollars: float | None) -> None:
    body = GPT if answer["model"].startswith("gpt") else chat(model="nobody-knows-it")
    assert cost(body, answer) == (None if dollars is None else pytest.approx(dollars))


def test_terms_have_their_own_price_where_there_is_one() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    usual = cost(chat(model="o3"), completion(model="o3", usage=usage, service_tier="default"))
    flex = cost(chat(model="o3"), completion(model="o3", usage=usage, service_tier="flex"))
    assert usual is not None
    assert flex == pytest.approx(usual / 2)


@pytest.mark.parametrize(
    ("url", "model", "dollars"),
    [
        ("https://api.openai.com/v1/chat/completions", "gpt-4o", 0.0035),
        (f"{GATEWAY}/v1/chat/completions", "gpt-4o", 0.0035),
        ("https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=1", "my-deployment", 0.0035),
        (f"{GATEWAY}/v1/chat/completions", "gpt-oss-20b", None),  # whoever runs it pays for something else
        (f"{GATEWAY}/v1/chat/completions", "deepseek-r1", None),
        (f"{GATEWAY}/v1/chat/completions", "llama-3.3-70b", None),
        ("https://api.groq.com/openai/v1/chat/completions", "gpt-4o", None),  # which it does not offer
    ],
)
def test_the_address_says_whose_list_counts_and_a_gateway_says_nothing(
    url: str, model: str, dollars: float | None
) -> None:
    answered = "gpt-4o-2024-08-06" if dollars else model
    answer = completion(model=answered, usage={"prompt_tokens": 1000, "completion_tokens": 100})
    assert cost(chat(model=model), answer, url=url) == (None if dollars is None else pytest.approx(dollars))


def test_an_answer_that_names_no_model_is_one_of_the_model_that_was_asked() -> None:
    answer = completion(usage={"prompt_tokens": 1000, "completion_tokens": 100})
    del answer["model"]
    assert cost(GPT, answer) == pytest.approx(0.0035)


def test_other_protocols_have_prices_too() -> None:
    message = WIRES["ANTHROPIC"].whole | {"model": "claude-sonnet-4-5-20250929"}
    message["usage"] = {"input_tokens": 400, "cache_read_input_tokens": 600, "output_tokens": 100}
    body = WIRES["ANTHROPIC"].body | {"model": "claude-sonnet-4-5"}
    dollars = (400 * 3 + 600 * 0.3 + 100 * 15) / 1e6
    assert cost(body, message, url="https://api.anthropic.com/v1/messages") == pytest.approx(dollars)
    assert cost(body, message, url=f"{GATEWAY}/v1/messages") == pytest.approx(dollars)

    google = "https://generativelanguage.googleapis.com"
    gemini = WIRES["GEMINI"]
    assert cost(gemini.body, gemini.whole, url=google + gemini.path) == pytest.approx((11 * 0.3 + 7 * 2.5) / 1e6)

    cohere = WIRES["COHERE"]  # the units that are billed, not those that were counted
    assert cost(cohere.body, cohere.whole, url="https://api.cohere.com/v2/chat") == pytest.approx(
        (1 * 2.5 + 2 * 10) / 1e6
    )

    embeddings = WIRES["EMBEDDINGS"]
    assert cost(embeddings.body, embeddings.whole, url=f"{GATEWAY}/v1/embeddings") == pytest.approx(2 * 0.02 / 1e6)


def test_what_runs_at_home_has_no_price() -> None:
    ollama = WIRES["OLLAMA_CHAT"]
    for model in ("llama3.2", "gpt-4o"):
        body = ollama.body | {"model": model}
        assert cost(body, ollama.whole | {"model": model}, url="http://127.0.0.1:11434/api/chat") is None


def test_a_stream_is_priced_by_the_usage_that_it_ends_with() -> None:
    pieces: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "model": "gpt-4o-2024-08-06"},
        {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100, **CACHED}},
    ]
    body = GPT | {"stream": True}
    whole = (*map(event, pieces), DONE)
    assert cost(body, None, chunks=whole, headers=STREAM_HEADERS) == pytest.approx(0.00275)
    assert cost(body, None, chunks=(whole[0], DONE), headers=STREAM_HEADERS) is None  # nobody asked for the usage


# --- a function of one's own


def test_a_function_is_told_what_a_price_depends_on_and_nothing_else() -> None:
    told: list[BilledCall] = []

    def mine(call: BilledCall) -> Decimal:
        told.append(call)
        return Decimal("0.25")

    policy = ModelPolicy(keys=str.__add__, cost=mine)
    assert cost(GPT, used(1000, 100, parts=CACHED, service_tier="flex"), policy=policy) == 0.25
    assert told == [
        BilledCall(
            "openai",
            "chat",
            "https://api.openai.com/v1/chat/completions",
            "gpt-4o",
            "gpt-4o-2024-08-06",
            Usage(1000, 100, (("cache_read_tokens", 600),), (("service_tier", "flex"),)),
        )
    ]


@pytest.mark.parametrize("given", [None, -1.0, float("nan"), float("inf"), "many", object()])
def test_what_is_no_amount_is_not_known(given: Any) -> None:
    assert cost(GPT, used(1, 1), policy=ModelPolicy(keys=str.__add__, cost=lambda call: given)) is None


def test_a_function_that_fails_keeps_no_answer_from_being_stored(caplog: pytest.LogCaptureFixture) -> None:
    def fails(call: BilledCall) -> float:
        raise LookupError("planted secret")

    policy = ModelPolicy(keys=str.__add__, cost=fails)
    with caplog.at_level(logging.DEBUG):
        assert [cost(GPT, used(1, 1), policy=policy) for _ in range(3)] == [None] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "cost= raised LookupError; what it cannot say is counted as unknown"
    ]


async def _coroutine(call: BilledCall) -> float:
    return 0.0


@pytest.mark.parametrize("wrong", ["litellm", 0.5, True, {"gpt-4o": 1}, _coroutine])
def test_what_gives_no_prices_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="genai-prices"):
        ModelPolicy(keys=str.__add__, cost=wrong)


def test_nobody_is_asked_where_no_prices_are_wanted() -> None:
    assert cost(GPT, used(1, 1), policy=ModelPolicy(keys=str.__add__)) is None
