"""The researcher of `perdure demo`: `examples/deep_research.py` with a line in a ledger for every step that begins."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from attrs import frozen

from perdure import Actor, Rejected, Retry, StepError, fan_out, handler, query, step, step_id
from perdure.demo import ledger, summary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Model: TypeAlias = "Callable[[str, str], Awaitable[str]]"

PAGES = sorted(topics)


async def extract(question: str, text: str) -> str:
    """The sentences of a page that say most to a question."""
    return await asyncio.to_thread(summary.summarise, text, focus=question)


@frozen
class World:
    """What the researcher finds outside: a library that takes time, a model that takes more, and a ledger."""

    ledger: Path = Path(os.devnull)
    model: Model = extract
    fetch_seconds: float = 0.0
    model_seconds: float = 0.0

    def enter(self, name: str, page: str) -> None:
        """Write down that this step has begun."""
        ledger.enter(self.ledger, ledger.Line(step_id(), name, page, os.getpid()))


class Researcher(Actor, kind="demo.researcher"):
    """Reads pages, keeps a note of each, answers from the notes."""

    world: ClassVar[World] = World()
    finished: int = 0
    notes: dict[str, str] = {}

    @step
    async def fetch(self, page: str) -> str:
        """One page of Python's reference, as `help()` shows it."""
        self.world.enter("fetch", page)
        await asyncio.sleep(self.world.fetch_seconds)
        return topics[page]

    @step(retry=Retry(attempts=5), timeout=60)
    async def summarise(self, question: str, page: str, text: str) -> str:
        """What a page says to the question."""
        self.world.enter("summarise", page)
        await asyncio.sleep(self.world.model_seconds)
        return await self.world.model(question, text)

    @step
    async def conclude(self, question: str, notes: dict[str, str]) -> str:
        """The answer that the notes give."""
        self.world.enter("conclude", "")
        await asyncio.sleep(self.world.model_seconds)
        return await asyncio.to_thread(summary.answer, question, notes)

    @handler
    async def research(self, question: str, pages: list[str]) -> str:
        """Read the pages, four at a time, and answer."""
        if not pages:
            raise Rejected("no pages to read")
        self.finished = 0

        async def study(page: str) -> str:
            try:
                note = await self.summarise(question, page, await self.fetch(page))
            except StepError as failed:
                note = f"{page} could not be read ({failed.error_type})."
            self.finished += 1
            return note

        notes = await fan_out(study, pages, concurrency=4, key=str)
        self.notes = dict(zip(pages, notes, strict=True))
        return await self.conclude(question, self.notes)

    @query
    async def progress(self) -> int:
        """How many pages are done."""
        return self.finished
