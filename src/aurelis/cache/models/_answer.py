"""What the rules need to know of a chat answer, streamed or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ._usage import UNKNOWN, Usage, read_chat_usage


@dataclass(frozen=True, slots=True)
class AnswerSummary:
    """An answer in brief.

    Attributes:
        complete: the protocol's own end was seen: the whole document, or a stream's terminator.
        malformed: some of it is not the JSON that a client expects there.
        error: it carries an error report.
        answered: it holds at least one choice.
        finish_reasons: of all choices, in order of arrival.
        usage: tokens as reported.
        model: name of the model that answered, `None` where not said.
    """

    complete: bool
    malformed: bool = False
    error: bool = False
    answered: bool = False
    finish_reasons: tuple[str, ...] = ()
    usage: Usage = UNKNOWN
    model: str | None = None


class AnswerReader:
    """Gathers a summary from the JSON objects of one answer: one document, or the events of a stream."""

    __slots__ = ("_answered", "_error", "_finish_reasons", "_malformed", "_model", "_usage")

    def __init__(self) -> None:
        self._malformed = False
        self._error = False
        self._answered = False
        self._finish_reasons: list[str] = []
        self._usage: object = None
        self._model: str | None = None

    def take(self, text: bytes) -> None:
        """Read one JSON object. Never raises: anything else makes the answer malformed."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            self._read(document)
        else:
            self._malformed = True

    def report_error(self) -> None:
        """Note an error that was told by other means than the JSON."""
        self._error = True

    def _read(self, document: Mapping[str, object]) -> None:
        if document.get("error") is not None or document.get("object") == "error":
            self._error = True
        if self._model is None:
            model = document.get("model")
            self._model = model if isinstance(model, str) else None
        usage = document.get("usage")
        if usage is not None:  # several servers report a running total with each event: the last one counts
            self._usage = usage
        choices = document.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                self._read_choice(choice)

    def _read_choice(self, choice: object) -> None:
        if not isinstance(choice, dict):
            self._malformed = True
            return
        self._answered = True
        if choice.get("error") is not None:  # gateways report a provider's failure inside the choice
            self._error = True
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self._finish_reasons.append(reason)

    def summary(self, *, complete: bool) -> AnswerSummary:
        """What was gathered; `complete`: the protocol's end was seen."""
        return AnswerSummary(
            complete=complete,
            malformed=self._malformed,
            error=self._error,
            answered=self._answered,
            finish_reasons=tuple(self._finish_reasons),
            usage=read_chat_usage(self._usage),
            model=self._model,
        )


def read_chat_answer(body: bytes) -> AnswerSummary:
    """Summary of an answer that is one JSON document. Never raises."""
    reader = AnswerReader()
    reader.take(body)
    return reader.summary(complete=True)
