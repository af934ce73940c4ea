"""Searching for the answer to a similar prompt, and whether it is to be served."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from aurelis.cache._options import seconds
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import Telemetry

from ._asked import Asked
from ._embedded import Embedded
from ._gate import refusal
from ._index import Index
from ._options import Options
from ._shelf import Shelf
from ._verdicts import PATIENCE, Pending, Verdicts
from ._verified import exploration
from ._view import Row
from ._wording import read

_NEAREST: Final = 16
"""Prompts that are looked at for one that is asked."""
_TRIES: Final = 3
"""Answers that are looked for; more of those that are near can hardly be gone."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """The answer to a similar prompt, and what was found out about it."""

    row: Row
    similarity: float
    key: str
    response: object = field(repr=False)
    tags: tuple[str, ...]


class Searching:
    """Finds what is similar.

    Args:
        shelf: has the answers.
        embedded: gives vectors; `None`: letters are compared.
        index: of the prompts.
        verdicts: is told of answers that are to be compared with what the model says.
    """

    def __init__(
        self,
        options: Options,
        telemetry: Telemetry,
        shelf: Shelf,
        embedded: Embedded | None,
        index: Index,
        verdicts: Verdicts,
    ) -> None:
        self._options = options
        self._telemetry = telemetry
        self._shelf = shelf
        self._embedded = embedded
        self._index = index
        self._verdicts = verdicts
        self._gate = options.effective_gate()
        self._timeout = seconds(options.timeout)
        for result in names.SIMILARITY_RESULTS:
            telemetry.table.cell(names.SIMILARITY_LOOKUPS, **{names.SIMILARITY_RESULT: result})

    async def similar(self, asked: Asked) -> Candidate | None:
        """The answer to a similar prompt that is to be served; a failure is counted, and is none."""
        result = "skipped"
        try:
            if asked.prompt and len(asked.prompt) <= self._options.max_prompt:
                found = await self._candidate(asked)
                if isinstance(found, Candidate):
                    result = await self._decided(asked, found)
                    return found if result == "hit" else None
                result = found
        except Exception as error:  # noqa: BLE001  # without it there is a model to ask
            self._telemetry.incident(names.SIMILARITY, "get", type(error).__qualname__)
        finally:
            self._telemetry.table.cell(names.SIMILARITY_LOOKUPS, **{names.SIMILARITY_RESULT: result}).n += 1
        return None

    async def _candidate(self, asked: Asked) -> Candidate | Literal["none", "refused", "skipped"]:
        vector = None
        if self._embedded is not None:
            vector = await self._embedded.vector(asked.prompt, asked.namespace)
            if vector is None:
                return "skipped"
        await self._index.brought_in_line(asked.partition, self._timeout)
        reading = read(asked.prompt)
        near = await self._index.nearest(asked.partition, reading, vector, _NEAREST, self._options.similarity_threshold)
        others = [(row, similarity) for row, similarity in near if row.prompt != asked.prompt]
        passing = [(row, similarity) for row, similarity in others if not refusal(reading, row.reading, self._gate)]
        for row, similarity in passing[:_TRIES]:
            key = asked.key_of(row.prompt)
            shelved = (await self._shelf.read([key])).get(key)
            if shelved is not None:
                return Candidate(row, similarity, key, shelved.value, shelved.tags)
            self._index.forget(asked.partition, row.name)
        return "refused" if others and not passing else "none"

    async def _decided(self, asked: Asked, found: Candidate) -> Literal["hit", "shadow", "explored"]:
        """Whether to serve it; if not, it will be compared with what the model answers."""
        if self._options.mode == "threshold":
            return "hit"
        if self._options.mode == "verified":
            seen = await self._index.evidence(asked.partition, found.row.name)
            if self._options.chance() >= exploration(seen, found.similarity, self._options.error_rate):
                return "hit"
        now = self._shelf.now()
        pending = Pending(asked.partition, found.row, found.similarity, found.key, now + PATIENCE)
        self._verdicts.expect(asked.key_of(asked.prompt), pending, now)
        return "shadow" if self._options.mode == "shadow" else "explored"
