"""Calls of models: what is answered again, what that saves, and why answers are not kept."""

from typing import Final

from aurelis.cache.telemetry import names

from . import _queries as q
from . import similarity
from ._records import MONEY, NONE_IS_GOOD, PLAIN, RESULTS, Choice, Dashboard, Panel, Query, Row
from .overview import HIT_RATIO, durations

_MODEL: Final = {names.MODEL: "$model"}
_NONE: Final = {names.MODEL: ""}
_TIMES: Final = q.series(names.SAVED_TIME)
_OF_MODELS: Final = "|".join(map(q.series, (names.SAVED_TOKENS, names.SAVED_UNKNOWN, names.SIMILARITY_LOOKUPS)))
"""What only caches of model calls have."""
_HITS: Final = q.in_range(names.REQUESTS, where=q.HITS)
# Caches of similar prompts do not know the model; the usage of all other hits is known but for those that say so.
_KNOWING: Final = q.total(
    f"increase({q.selector(names.REQUESTS, q.HITS)}[$__range]) "
    f"and on ({q.label(names.NAME)}) {q.selector(names.SAVED_TIME, {names.MODEL: '.+'}, raw=True)}"
)
_KNOWN: Final = f"(({_KNOWING} or vector(0)) - ({q.in_range(names.SAVED_UNKNOWN)} or vector(0)))"


def _per_minute(metric: names.Metric, *further: str, said: str = "") -> Query:
    growth = q.per_minute(metric, names.MODEL, *further, where=_MODEL)
    return Query(q.or_zero(growth), q.legend(names.MODEL, *further) + said)


_STATS = (
    Panel(
        "Hit ratio",
        """Share of all calls of models in the time range that a stored answer answered. If it is low, prompts that
        mean the same differ: a time, an id or a random order in them makes each one new. A temperature above the
        allowed one and tools that change also forbid it.""",
        (Query(HIT_RATIO, "Hit ratio"),),
        kind="stat",
        unit="percentunit",
        decimals=1,
        steps=((None, "red"), (0.1, "yellow"), (0.3, "green")),
        width=5,
    ),
    Panel(
        "US dollars saved",
        """What the calls have cost in their time whose answers were used again in the time range. Zero although there
        are hits: the transport has no prices (cost=), or knows none of this model; see "Hits of unknown worth".""",
        (Query(f"{q.in_range(names.SAVED_COST, where=_MODEL)} or {q.ZERO}", "US dollars saved"),),
        kind="stat",
        unit="currencyUSD",
        decimals=2,
        steps=MONEY,
        width=5,
    ),
    Panel(
        "Tokens saved",
        """Tokens that models neither had to read nor to write again in the time range. Zero although there are hits:
        answers carry no usage; with streams of OpenAI's protocol ask for it by include_usage.""",
        (Query(f"{q.in_range(names.SAVED_TOKENS, where=_MODEL)} or {q.ZERO}", "Tokens saved"),),
        kind="stat",
        steps=PLAIN,
        width=5,
    ),
    Panel(
        "Time saved",
        """How long models once took for the answers that were used again in the time range. If it is small in spite of
        many hits, the answers are short.""",
        (Query(q.in_range(names.SAVED_TIME, where=_MODEL), "Time saved"),),
        kind="stat",
        unit="s",
        steps=PLAIN,
        width=5,
    ),
    Panel(
        "Hits of known usage",
        """Share of the hits in the time range that say how many tokens they save. Below all of them, the figures above
        are too small: make the calls ask for their usage.""",
        (Query(f"{_KNOWN} / ({_HITS} > 0)", "Hits of known usage"),),
        kind="stat",
        unit="percentunit",
        decimals=0,
        steps=((None, "red"), (0.5, "yellow"), (0.95, "green")),
        width=4,
    ),
)

_CALLS = (
    Panel(
        "Calls by result",
        """Every call of a model once. `miss` went to the provider, unless it shared the answer of another. `bypass`:
        its parameters forbid an answer from the cache, for instance a high temperature, or cache_options(bypass=True)
        stayed on.""",
        (Query(q.per_second(names.REQUESTS, names.RESULT, names.LAYER), q.legend(names.RESULT, names.LAYER)),),
        unit="reqps",
        stacked=True,
        colors=RESULTS,
    ),
    Panel(
        "How long models take",
        """From a call to the end of its answer, streams included, of those that went to the provider. If it grows, the
        provider is slow or answers get longer; hits do not feel it. Points are exemplars, where a trace was recorded.
        """,
        durations(q.FILL, names.NAME),
        unit="s",
        traced=True,
    ),
    Panel(
        "Failed calls",
        """Calls that ended with an exception or were given up, around each point, by its type. The caller got them
        as they were. Anything that lasts: see the provider's status page, limits and time-outs.""",
        (
            Query(
                q.or_zero(q.events(names.DURATION, names.NAME, names.ERROR_TYPE, where=q.FAILED_LOADS)),
                q.legend(names.NAME, names.ERROR_TYPE),
            ),
        ),
        steps=NONE_IS_GOOD,
        traced=True,
    ),
    Panel(
        "Shared answers and streams",
        """Calls per second that got the answer of an equal call under way, its stream included, and those that wait for
        one now. Many waiting for long: the model is slow, and the same question is popular.""",
        (
            Query(q.per_second(names.COALESCED, names.NAME), f"{q.legend(names.NAME)}: shared per second"),
            Query(q.level(names.WAITING, names.NAME), f"{q.legend(names.NAME)}: waiting now"),
        ),
        traced=True,
    ),
)

_ITEMS = (
    Panel(
        "Items by result",
        """Items per second of calls that ask for several at once, such as embeddings of several texts; calls for one
        are not counted here. `collapsed`: another call has it under way, or this one asks for it twice. Mostly `miss`:
        the texts are new each time, or they are split anew at other places.""",
        (Query(q.or_zero(q.per_second(names.ITEMS, names.RESULT, names.LAYER)), q.legend(names.RESULT, names.LAYER)),),
        unit="ops",
        stacked=True,
        colors=RESULTS,
    ),
    Panel(
        "Items answered from the cache, by cache",
        """Share of the items of such calls that the provider was not asked for. A call with a single new item goes to
        the provider with that one only, so this and not the hit ratio of calls says what is saved. If it falls, texts
        have changed: was something deployed? No data: no such calls.""",
        (
            Query(
                q.share_by(
                    q.per_second(names.ITEMS, names.NAME, but={names.RESULT: names.MISS}),
                    q.per_second(names.ITEMS, names.NAME),
                ),
                q.legend(names.NAME),
            ),
        ),
        unit="percentunit",
        maximum=1,
    ),
)

_SAVINGS = (
    Panel(
        "Tokens saved per minute, by model",
        """What each model did not have to read (`input`) and write (`output`) again. A model that is missing answers
        with no usage, or its calls are not repeated: compare with "Hits of unknown worth".""",
        (_per_minute(names.SAVED_TOKENS, names.TOKEN_TYPE),),
        stacked=True,
    ),
    Panel(
        "US dollars saved per hour, by model",
        """What the calls have cost whose answers were used again. A model that is missing has no price, or the
        transport was made without cost=.""",
        (Query(q.or_zero(q.per_hour(names.SAVED_COST, names.MODEL, where=_MODEL)), q.legend(names.MODEL)),),
        unit="currencyUSD",
        stacked=True,
    ),
    Panel(
        "Time saved per minute, by model",
        """How long each model once took for the answers that were used again; more than a minute means that several
        callers at once wait no more. If it drops while calls go on, their prompts have begun to differ: what was
        deployed?""",
        # Without a model it is the time of other responses.
        (
            Query(
                q.or_zero(q.per_minute(names.SAVED_TIME, names.MODEL, where=_MODEL, but=_NONE)), q.legend(names.MODEL)
            ),
        ),
        unit="s",
        stacked=True,
    ),
    Panel(
        "Hits of unknown worth",
        """Hits per minute on answers that do not tell their usage, and on those without a price. They count as nothing
        in the figures above. Ask for usage in streams (include_usage), and give prices for the model's name.""",
        (
            _per_minute(names.SAVED_UNKNOWN, said=" no usage"),
            _per_minute(names.SAVED_UNPRICED, said=" no price"),
        ),
    ),
)

_REFUSALS = (
    Panel(
        "Answers not kept, by reason",
        """Answers per second that were loaded and not stored. `status`: the provider answered with an error. `error`:
        the answer has one inside. `length` and `filtered`: cut by a limit or a filter; keep= takes them. `media_type`,
        `malformed`, `no_choices`: it is not what the protocol promises; see what stands between here and the provider.
        `too_large`: raise max_body_bytes.""",
        (
            Query(
                q.or_zero(q.per_second(names.STORES, names.STORE_RESULT, but={names.STORE_RESULT: "stored"})),
                q.legend(names.STORE_RESULT),
            ),
        ),
        unit="ops",
        stacked=True,
    ),
    Panel(
        "Streams that broke off",
        """Answers per second that ended before their protocol's end (`truncated`): the connection broke, the provider
        gave up, or a server leaves the end out (then keep=["unterminated"] helps). Above zero for long: look at
        time-outs of proxies.""",
        (
            Query(
                f"{q.per_second(names.STORES, where={names.STORE_RESULT: 'truncated'})} or {q.ZERO}",
                "broke off",
            ),
            Query(f"{q.per_second(names.STORES, where={names.STORE_RESULT: 'stored'})} or {q.ZERO}", "kept"),
        ),
        unit="ops",
    ),
)

DASHBOARD: Final = Dashboard(
    uid="aurelis-cache-models",
    title="Aurelis Cache: model calls",
    description="Which calls of models are answered again, what that saves, and why answers are not kept.",
    rows=(
        Row(title="In the time range", panels=_STATS),
        Row(title="Calls", panels=_CALLS),
        Row(title="Items of calls for several", panels=_ITEMS),
        Row(title="What is saved", panels=_SAVINGS),
        Row(title="What is not kept", panels=_REFUSALS),
        similarity.ROW,
    ),
    caches=f'label_values({{__name__=~"{_OF_MODELS}", {q.PROCESSES}}}, {q.label(names.NAME)})',
    choices=(
        Choice(
            name="model",
            label="Model",
            query=f"label_values({_TIMES}{{{q.CACHES}}}, {q.label(names.MODEL)})",
            every=".*",
        ),
    ),
)
