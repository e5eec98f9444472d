"""A reader outside, who sees every little while who has which actor: the evidence of the fence."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psycopg

from perdure.storage.postgres_open import place

_LOOK_SECONDS = 0.05
_OWNERS = "SELECT id, owner, epoch, cursor FROM actor"


class Witness:
    """What was seen of every actor: under one epoch one owner only; and no epoch and no cursor ever goes back."""

    def __init__(self) -> None:
        self._owners: dict[tuple[int, int], str] = {}
        self._last: dict[int, tuple[int, int]] = {}
        self.looks = 0
        self.wrong: list[str] = []

    def __repr__(self) -> str:
        return f"<Witness: {self.looks} looks, {len(self._owners)} activations, {len(self.wrong)} wrong>"

    @property
    def activations(self) -> int:
        """How many were seen."""
        return len(self._owners)

    def look(self, rows: Iterable[tuple[int, str | None, int, int]]) -> None:
        """Compare what there is now with what was seen."""
        self.looks += 1
        for actor, owner, epoch, cursor in rows:
            last_epoch, last_cursor = self._last.get(actor, (0, 0))
            if epoch < last_epoch or cursor < last_cursor:
                self.wrong.append(f"{actor} went back: {(epoch, cursor)} after {(last_epoch, last_cursor)}")
            self._last[actor] = (epoch, cursor)
            if owner is not None and self._owners.setdefault((actor, epoch), owner) != owner:
                self.wrong.append(f"{actor} has two owners under {epoch}: {owner}, {self._owners[actor, epoch]}")


@asynccontextmanager
async def witness(target: str) -> AsyncGenerator[Witness]:
    """Somebody who looks, for as long as this lasts. The system is there already."""
    found, done = Witness(), asyncio.Event()
    watching = asyncio.create_task(_watch(target, found, done))
    try:
        yield found
    finally:
        done.set()
        await watching


async def _watch(target: str, found: Witness, done: asyncio.Event) -> None:
    if target.startswith("postgresql://"):
        where = place(target)
        options = f"-c search_path={where.schema}"
        async with await psycopg.AsyncConnection.connect(where.conninfo, options=options, autocommit=True) as server:
            while not done.is_set():
                found.look(await (await server.execute(_OWNERS)).fetchall())
                await asyncio.sleep(_LOOK_SECONDS)
        return
    file = Path(target.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as reader:
        while not done.is_set():
            found.look(reader.execute(_OWNERS).fetchall())
            await asyncio.sleep(_LOOK_SECONDS)
