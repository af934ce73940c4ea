"""Write-behind: what waits for the store, and what it refuses. A row of the dashboard of layers."""

from typing import Final

from aurelis.cache.telemetry import names

from . import _queries as q
from ._records import NONE_IS_GOOD, Panel, Query, Row


def of_journal(metric: names.Metric) -> str:
    """A level that every process on a journal reports alike."""
    return q.shared(metric, names.NAME, names.JOURNAL)


ROW: Final = Row(
    title="Write-behind",
    panels=(
        Panel(
            "Writes that wait",
            """Keys of each journal whose newest value is not in the store yet. Nothing is lost, but a full journal lets
            writes wait and then fail. If it grows: the store is slow or fails; larger batches and set_many help against
            the first.""",
            (Query(q.or_zero(of_journal(names.WRITES_WAITING)), q.legend(names.NAME, names.JOURNAL)),),
        ),
        Panel(
            "Dead letters",
            """Writes that the store has refused as often as max_attempts allows. They are kept: dead_letters() lists
            them with the reason; repair what the store complains of, then replay_dead_letters().""",
            (Query(q.or_zero(of_journal(names.DEAD_LETTERS)), q.legend(names.NAME, names.JOURNAL)),),
            steps=NONE_IS_GOOD,
        ),
        Panel(
            "Writes by result",
            """Writes per second that were accepted, and those that wait no more: `written`, `coalesced` into a newer
            one of the same key, or `dead`. If fewer are settled than accepted for long, they pile up.""",
            (
                Query(
                    q.or_zero(q.per_second(names.WRITES_ACCEPTED, names.JOURNAL)), f"{q.legend(names.JOURNAL)} accepted"
                ),
                Query(
                    q.or_zero(q.per_second(names.WRITES_SETTLED, names.JOURNAL, names.WRITE_RESULT)),
                    q.legend(names.JOURNAL, names.WRITE_RESULT),
                ),
            ),
            unit="wps",
        ),
        Panel(
            "Retries and replays",
            """Attempts around each point that failed and that another one follows, and dead letters that were made to
            wait again. Retries that go on: the store fails, see its errors by type in "Failures".""",
            (
                Query(q.or_zero(q.events(names.WRITE_RETRIES, names.JOURNAL)), f"{q.legend(names.JOURNAL)} retries"),
                Query(q.or_zero(q.events(names.WRITES_REPLAYED, names.JOURNAL)), f"{q.legend(names.JOURNAL)} replayed"),
            ),
            steps=NONE_IS_GOOD,
        ),
    ),
)
