"""The current context, asked for at every hit."""

import pytest
from opentelemetry.context import attach, detach, get_current, set_value

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
