"""Taking note of answers that were stored, so that they are found for similar prompts."""

from __future__ import annotations

from functools import partial

from aurelis.cache._watching import Answered

from ._asked import partition_of
from ._embedded import Embedded
from ._index import Index
from ._options import Options
from ._shelf import Shelf
from ._verdicts import Pending, Verdicts


class Notes:
    """Lists prompts, and has their answers compared with what was found before they came.

    Args:
        shelf: has the answers.
        embedded: gives vectors; `None`: letters are compared.
        index: of the prompts.
        verdicts: compares answers.
    """

    def __init__(
        self, options: Options, shelf: Shelf, embedded: Embedded | None, index: Index, verdicts: Verdicts
    ) -> None:
        self._options = options
        self._shelf = shelf
        self._embedded = embedded
        self._index = index
        self._verdicts = verdicts

    async def take(self, answer: Answered) -> None:
        """Take note of an answer."""
        if not answer.prompt or len(answer.prompt) > self._options.max_prompt:
            return
        if not callable(self._options.namespace) and answer.namespace != self._options.namespace:
            return  # nobody asks for it here, so its prompt is nothing for this embedder
        partition = partition_of(
            answer.model_type, answer.parameters, answer.provider, answer.namespace, self._embedded
        )
        pending = self._verdicts.expected(answer.key, self._shelf.now())
        if pending is None:
            await self._list(partition, answer)
            return
        if not self._verdicts.begin(partial(self._compare, partition, pending, answer)):
            self._verdicts.unverified()
            await self._list(partition, answer)
            return
        if self._options.mode != "verified":
            await self._list(partition, answer)

    async def _compare(self, partition: str, pending: Pending, answer: Answered) -> None:
        """In the background: hear the judge, and remember what was said."""
        # Both are read here, as what the app has in its hands it may have changed.
        found = await self._shelf.read([pending.key, answer.key])
        if len(found) == 2:
            verdict = await self._verdicts.judge(found[pending.key].value, found[answer.key].value)
        else:
            verdict = self._verdicts.unverified()
        if self._options.mode != "verified":
            return
        if verdict != "unverified":
            await self._index.observe(pending.partition, pending.row, (pending.similarity, verdict == "correct"))
        if verdict != "correct":
            # A prompt that another one answers needs no place of its own: what is like it is to be seen at that one,
            # which has learned something already.
            await self._list(partition, answer)

    async def _list(self, partition: str, answer: Answered) -> None:
        if self._options.mode == "verified":
            await self._index.forget_evidence(partition, answer.prompt, answer.life, answer.tags)
        vector = None
        if self._embedded is not None:
            vector = await self._embedded.vector(answer.prompt, answer.namespace)
            if vector is None:
                return
        await self._index.add(partition, answer.prompt, vector, answer.life, answer.tags, answer.own_tags)
