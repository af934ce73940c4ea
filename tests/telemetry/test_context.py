"""The current context, asked for at every hit."""

from collections.abc import Generator
from contextvars import copy_context

import pytest
from opentelemetry.context import Context, attach, detach, get_current, set_value

from aurelis.cache.telemetry import _spans


def test_the_current_context_is_read_without_the_frames_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = set_value("language", "la")
    token = attach(spoken)
    try:
        assert _spans.get_current_context() is spoken
        assert _spans._reader_of_context() is not get_current
    finally:
        detach(token)
    assert _spans.get_current_context() == {}
    monkeypatch.delattr("opentelemetry.context._RUNTIME_CONTEXT")
    assert _spans._reader_of_context() is get_current, "an API without that variable is asked in its own way"


class _Forever:
    """What is never there."""

    def __await__(self) -> Generator[None, None, None]:
        while True:
            yield


@pytest.mark.parametrize("elsewhere", ["nothing", "the same", "another"])
def test_what_is_dropped_takes_its_own_context_away_and_no_other(
    elsewhere: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The garbage collector comes anywhere, also where a copy of that context is current."""
    inside = set_value("language", "la")
    there = {"nothing": Context(), "the same": inside, "another": set_value("language", "el")}[elsewhere]

    async def work() -> None:
        with _spans._attached(inside):
            await _Forever()

    coroutine = work()
    copy_context().run(coroutine.send, None)
    token = attach(there)
    try:
        coroutine.close()
        assert get_current() is there
    finally:
        detach(token)
    assert not caplog.records


def test_what_ends_early_where_it_began_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        with _spans._attached(set_value("language", "la")):
            await _Forever()

    coroutine, before = work(), get_current()
    coroutine.send(None)
    coroutine.close()
    assert get_current() is before
    assert not caplog.records
