"""What the rules need to know of an answer, streamed or not, and how the protocols' answers are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._splitting import Frame, Splitter
from ._usage import UNKNOWN, Usage, counts

Document = Mapping[str, Any]
"""A JSON object. Any: whatever JSON can hold, which each reader checks."""

LENGTH = "length"
"""Kind of an answer that a limit has cut short."""
FILTERED = "filtered"
"""Kind of an answer that a filter has withheld or ended, or that the model was kept from giving."""
INCOMPLETE = "incomplete"
"""Kind of an answer that is unfinished otherwise."""

_DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class AnswerSummary:
    """An answer in brief.

    Attributes:
        complete: the protocol's own end was seen: the whole document, or a stream's terminator.
        finished: all choices that began have ended, whatever else is missing.
        malformed: some of it is not the JSON that a client expects there.
        error: it carries an error report.
        answered: it holds something of an answer.
        finish_reasons: of all choices, in order of arrival.
        usage: tokens as reported.
        model: name of the model that answered, `None` where not said.
    """

    complete: bool
    finished: bool = False
    malformed: bool = False
    error: bool = False
    answered: bool = False
    finish_reasons: tuple[str, ...] = ()
    usage: Usage = UNKNOWN
    model: str | None = None


class Findings:
    """What is gathered of one answer while it is read.

    Attributes:
        ended: the protocol's own end was seen.
        input_tokens: the last count that was reported: several servers report a running total with each event.
        output_tokens: likewise.
        details: other counts, by name, likewise; see `Usage`.
        terms: what was said of how it is billed, by name.
        begun: the choices that have begun.
        over: those that have ended.

    The others are as in `AnswerSummary`.
    """

    __slots__ = (
        *("answered", "begun", "details", "ended", "error", "finish_reasons", "input_tokens", "malformed", "model"),
        *("output_tokens", "over", "terms"),
    )

    def __init__(self) -> None:
        self.ended = False
        self.malformed = False
        self.error = False
        self.answered = False
        self.finish_reasons: list[str] = []
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.details: dict[str, int] = {}
        self.terms: dict[str, str] = {}
        self.model: str | None = None
        self.begun: set[object] = set()
        self.over: set[object] = set()

    def named(self, model: object) -> None:
        """The model says its name; the first one counts."""
        if self.model is None and isinstance(model, str):
            self.model = model

    def used(self, input_tokens: int | None, output_tokens: int | None) -> None:
        """Counts were reported; `None`: not this one."""
        if input_tokens is not None:
            self.input_tokens = input_tokens
        if output_tokens is not None:
            self.output_tokens = output_tokens

    def detailed(self, block: object, paths: Mapping[str, tuple[str, ...]]) -> None:
        """Counts that may be somewhere in a block of usage, by the name that they have here."""
        self.details |= counts(block, paths)

    def billed(self, name: str, value: object) -> None:
        """What an answer may say of how it is billed."""
        if isinstance(value, str) and value:
            self.terms[name] = value.lower()

    def choice(self, index: object, reason: object) -> None:
        """There is something of a choice; `reason` is why it ended, if it has."""
        self.answered = True
        place = index if isinstance(index, int) else 0
        self.begun.add(place)
        if isinstance(reason, str) and reason:
            self.over.add(place)
            self.finish_reasons.append(reason)

    def summary(self) -> AnswerSummary:
        """What was gathered."""
        return AnswerSummary(
            complete=self.ended,
            finished=bool(self.over) and self.begun <= self.over,
            malformed=self.malformed,
            error=self.error,
            answered=self.answered,
            finish_reasons=tuple(self.finish_reasons),
            usage=Usage(
                self.input_tokens,
                self.output_tokens,
                tuple((name, number) for name, number in self.details.items() if number),
                tuple(self.terms.items()),
            ),
            model=self.model,
        )


def _never(frame: Frame, choices: int) -> bool:
    return False


def _unread(document: Document, findings: Findings) -> None:
    return


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the answers of one operation are read.

    Attributes:
        read: notes what a whole answer says. Its end is taken for granted; `findings.ended = False` denies it.
        read_event: notes what one event of a stream says, and whether it is the end.
        ends: whether a stream may end with this frame, of a call that asked for so many choices. Only a hint when to
            look: what is stored is read by `read_event`.
        reasons: finish reasons of answers that are not whole, and of what kind they are.
        otherwise: the kind of those that are in neither `reasons` nor `good`; `None`: they are of whole answers.
        good: finish reasons of whole answers.
        done: the event `[DONE]` is the end of a stream; otherwise it means nothing.
        finishes: finds in a frame the reason why a choice has ended, as its group, where a stream's end comes after
            that; `None`: it is the end. A hint like `ends`.
    """

    read: Callable[[Document, Findings], None]
    read_event: Callable[[Document, Findings], None] = _unread
    ends: Callable[[Frame, int], bool] = _never
    reasons: Mapping[str, str] = field(default_factory=dict)
    otherwise: str | None = None
    good: frozenset[str] = frozenset()
    done: bool = False
    finishes: re.Pattern[bytes] | None = None

    def kind(self, reason: str) -> str | None:
        """What kind of unfinished answer ends for this reason; `None`: a whole one."""
        if reason in self.good:
            return None
        return self.reasons.get(reason, self.otherwise)


def read_answer(dialect: Dialect, body: bytes) -> AnswerSummary:
    """Summary of an answer that is one JSON document. Never raises."""
    findings = Findings()
    findings.ended = True
    document = parse(body)
    if document is None:
        findings.malformed = True
    else:
        findings.error = is_error(document)
        dialect.read(document, findings)
    return findings.summary()


def read_stream(dialect: Dialect, splitter: Splitter, chunks: Iterable[bytes]) -> AnswerSummary:
    """Summary of a streamed answer. Never raises.

    What follows the end counts too: a body with an error after it is not one to keep.

    Args:
        splitter: a new one.
    """
    findings = Findings()
    frames = splitter.feed(b"".join(chunks))
    for name, data in (*frames, *splitter.rest()):
        if name == b"error":
            findings.error = True
        if data == _DONE:
            findings.ended |= dialect.done
        elif data:
            document = parse(data)
            if document is None:
                findings.malformed = True
                continue
            findings.error |= is_error(document)
            dialect.read_event(document, findings)
    if splitter.is_open:
        findings.ended = False
        findings.over.clear()
    return findings.summary()


class StreamTerminator:
    """Watches for the end that a protocol announces, whatever the chunks. Holds one frame at most.

    It decides, not the end of the body: clients close the connection when they have read it, and a connection that is
    cut cleanly before looks like a success to them.

    Args:
        splitter: a new one.
        choices: how many the call asked for.
        keep: kinds of answers that are kept although they are not whole.
    """

    __slots__ = ("_choices", "_dialect", "_ended", "_ends", "_finishes", "_keep", "_left", "_said", "_splitter")

    def __init__(
        self, dialect: Dialect, splitter: Splitter, choices: int = 1, keep: Collection[str] = frozenset()
    ) -> None:
        self._dialect = dialect
        self._keep = keep
        self._ends = dialect.ends
        self._finishes = None if dialect.finishes is None else dialect.finishes.search
        self._splitter = splitter
        self._choices = choices
        self._left = choices  # that have not ended for a good reason
        self._said = False  # a frame that says that the stream ends with it has come
        self._ended = False

    def feed(self, chunk: bytes) -> bool:
        """Take the next chunk; true from the moment at which the end is complete."""
        if not self._ended:
            for frame in self._splitter.feed(chunk):
                self._said |= self._ends(frame, self._choices)
                if self._finishes is not None and (found := self._finishes(frame.data)) is not None:
                    self._left -= self._is_kept(found[1])
            self._ended = self._said and not self._splitter.is_open
        return self._ended

    @property
    def is_near(self) -> bool:
        """Every choice has said why it has ended, and would be kept, so nothing but the end is awaited."""
        return self._left <= 0

    def _is_kept(self, reason: bytes) -> bool:
        kind = self._dialect.kind(reason.decode("utf-8", "replace"))
        return kind is None or kind in self._keep


def parse(text: bytes) -> Document | None:
    """The JSON object in `text`; `None`: there is none. Never raises."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def is_error(document: Document) -> bool:
    """Whether an object reports an error in one of the ways that are common to the protocols.

    The word alone means nothing: whole answers carry `"error": null`.
    """
    return document.get("error") is not None or document.get("object") == "error" or document.get("type") == "error"


def ends_with_done(frame: Frame, choices: int) -> bool:
    """The end is `data: [DONE]`."""
    return frame.data == _DONE


def ends_with_type(*types: str) -> Callable[[Frame, int], bool]:
    """The end is an event whose JSON says that it is of one of these types."""
    words = tuple(kind.encode("ascii") for kind in types)

    def ends(frame: Frame, choices: int) -> bool:
        data = frame.data
        if not any(word in data for word in words):  # most events are not worth parsing
            return False
        document = parse(data)
        return document is not None and document.get("type") in types

    return ends


def items(value: object) -> list[Any]:
    """A JSON array; empty where it is none."""
    return value if isinstance(value, list) else []


def members(value: object) -> Document:
    """A JSON object; empty where it is none."""
    return value if isinstance(value, dict) else {}
