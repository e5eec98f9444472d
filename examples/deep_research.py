"""Read the reference pages that ship with CPython and answer a question about them.

    python examples/deep_research.py "When is a finally clause executed?" --db research.db

Kill it as you like and start it again: it goes on at the first page that it had not finished.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pydoc_data.topics import topics
from typing import ClassVar, TypeAlias

from rich.progress import Progress

from perdure import Actor, ActorSystem, Rejected, Retry, StepError, fan_out, handler, query, step
from perdure.demo.summary import answer, summarise

Model: TypeAlias = Callable[[str, str], Awaitable[str]]  # a question and a text -> what the text says to it


async def extract(question: str, text: str) -> str:
    """Summarises without a language model. To use one, pass `main` a function like this that calls it."""
    await asyncio.sleep(0.2)  # about as long as a quick model takes
    return await asyncio.to_thread(summarise, text, focus=question)


class Researcher(Actor, kind="researcher"):
    """Reads pages, keeps a note of each, answers from the notes."""

    model: ClassVar[Model] = extract
    finished: int = 0
    notes: dict[str, str] = {}

    @step
    async def fetch(self, topic: str) -> str:
        return topics[topic]

    @step(retry=Retry(attempts=5), timeout=60)
    async def read(self, question: str, text: str) -> str:
        return await Researcher.model(question, text)

    @handler
    async def research(self, question: str, pages: list[str]) -> str:
        if not pages:
            raise Rejected("no pages to read")
        self.finished = 0

        async def study(topic: str) -> str:
            try:
                note = await self.read(question, await self.fetch(topic))
            except StepError as failed:
                note = f"{topic} could not be read ({failed.error_type})."
            self.finished += 1
            return note

        self.notes = dict(zip(pages, await fan_out(study, pages, concurrency=4, key=str), strict=True))
        return answer(question, self.notes)

    @query
    async def progress(self) -> int:
        return self.finished


async def main(question: str, database: str, model: Model = extract) -> None:
    Researcher.model = model
    async with ActorSystem(database) as system:
        researcher = system.get(Researcher, "python")
        work = researcher.research.options(id=f"research/{question}")  # started again, it is the same work
        receipt = await work.tell(question, sorted(topics))
        with Progress() as bar:
            reading = bar.add_task("reading", total=len(topics))
            while await receipt.status() in {"pending", "running", "waiting"}:
                bar.update(reading, completed=await researcher.progress())
                await asyncio.sleep(0.1)
            bar.update(reading, completed=len(topics))
        print(await receipt.result())


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Answer a question from Python's own reference pages.")
    arguments.add_argument("question", nargs="?", default="When is a finally clause executed?")
    arguments.add_argument("--db", default="research.db")
    given = arguments.parse_args()
    try:
        asyncio.run(main(given.question, given.db))
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.")
