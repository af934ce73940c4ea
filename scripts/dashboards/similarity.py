"""Similar prompts: how searches end, and how often they would be wrong. A row of the dashboard of model calls."""

from typing import Final

from aurelis.cache.telemetry import names

from . import _queries as q
from ._records import Panel, Query, Row

_FALSE: Final = {names.VERDICT: "false_hit"}
_JUDGED: Final = {names.VERDICT: "correct|false_hit"}


def _verdicts(where: dict[str, str]) -> str:
    return q.in_range(names.SIMILARITY_VERDICTS, where=where)


ROW: Final = Row(
    title="Similar prompts",
    panels=(
        Panel(
            "False hits",
            """Share of the similar prompts compared with the model's own answer, in the time range, whose answer was
            wrong. It says how much to trust what is served: above what you can bear, raise similarity_threshold or go
            back to the shadow. Zero of few says nothing: see "Verdicts". No data: nothing was compared.""",
            (
                Query(
                    q.share(_verdicts(_FALSE), _verdicts(_JUDGED)),
                    "False hits",
                ),
            ),
            kind="stat",
            unit="percentunit",
            decimals=1,
            steps=((None, "green"), (0.01, "yellow"), (0.05, "red")),
            height=8,
        ),
        Panel(
            "Searches for similar prompts",
            """How searches ended per second: `hit` was served, `shadow` would have been, `explored` asked the model to
            learn from it, `refused` did not pass the gate, `none` was not similar. `skipped`: a failure, or a prompt
            that was too long; see the failures of the layer similarity.""",
            (
                Query(
                    q.or_zero(q.per_second(names.SIMILARITY_LOOKUPS, names.SIMILARITY_RESULT)),
                    q.legend(names.SIMILARITY_RESULT),
                ),
            ),
            unit="ops",
            stacked=True,
            width=9,
        ),
        Panel(
            "Verdicts",
            """Answers to similar prompts that were held against the model's own, around each point. `false_hit`: look
            at report() for which. Many `unverified`: what compares them fails or is too slow, so nothing is learnt.""",
            (
                Query(
                    q.or_zero(q.events(names.SIMILARITY_VERDICTS, names.VERDICT, names.SIMILARITY_MODE)),
                    q.legend(names.VERDICT, names.SIMILARITY_MODE),
                ),
            ),
            stacked=True,
            width=9,
        ),
    ),
)
