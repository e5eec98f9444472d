"""What retention removes is missed by nobody: no effect happens twice or is lost, and no caller waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import anyio
import pytest

from perdure import Actor, ActorSystem, DeadLetterError, Receipt, Ref, Retry, StorageError, handler, query, step
from perdure.console.operate import Operator
from perdure.storage.history_writes import Purge, Purged
from tests.unit.crashing import host_of
from tests.unit.inspected import STORES, target_of
from tests.unit.observing import until

ALL = 4_000_000_000.0
"""A time before which everything ended."""

gates: dict[str, asyncio.Event] = {}
broken: set[str] = set()


@pytest.fixture(params=STORES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database, whose actors stand at no gate yet."""
    gates.clear()
    broken.clear()
    return target_of(request, tmp_path)


async def purge(system: ActorSystem) -> int:
    """Remove all that may be removed; how much that was."""
    purged = await host_of(system).committer.write(Purge(ALL, ALL, 0))
    assert isinstance(purged, Purged)
    return purged.removed


def looks_late(system: ActorSystem, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have a system look for outcomes of elsewhere only once this is set."""
    outcomes, late = host_of(system).outcomes, asyncio.Event()
    look = outcomes.look

    async def looking(messages: Collection[int] | None = None) -> None:
        await late.wait()
        await look(messages)

    monkeypatch.setattr(outcomes, "look", looking)
    return late


@step(retry=Retry(1))
async def effect(name: str) -> str:
    """Fails while its name is among the broken ones."""
    if name in broken:
        raise ValueError(name)
    return name


class Tally(Actor, kind="retention.tally", retry=Retry(1)):
    total: int = 0

    @handler
    async def add(self, n: int, gate: str = "") -> int:
        """Count, once the gate is open."""
        if gate:
            await gates.setdefault(gate, asyncio.Event()).wait()
        self.total += n
        return self.total

    @query
    async def value(self) -> int:
        return self.total


class Boss(Actor, kind="retention.boss", retry=Retry(1)):
    jobs: list[Receipt[int]] = []

    @handler
    async def both(self, tally: Ref[Tally]) -> int:
        """Ask, beside a step that may fail."""
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(_ask(tally))
            group.create_task(_effect())
        return asked.result()

    @handler
    async def order(self, tally: Ref[Tally], n: int) -> None:
        """Send what is handled much later."""
        await tally.add.tell(n, "ordered")

    @handler
    async def begin(self, tally: Ref[Tally]) -> None:
        self.jobs.append(await tally.add.tell(5))

    @handler
    async def collect(self) -> str:
        try:
            return str(await self.jobs[0].result())
        except StorageError as error:
            return str(error)


async def _ask(tally: Tally) -> int:
    return await tally.add(1, "asked")


async def _effect() -> str:
    return await effect("step")


async def test_a_letter_asks_again_what_is_history(target: str) -> None:
    """A dead letter that is tried again after the weekend has nobody do again what he did on Friday."""
    broken.add("step")
    async with ActorSystem(target) as system:
        boss, tally = system.get(Boss, "b"), system.get(Tally, "t")
        letter = await boss.both.options(id="letter").tell(tally)
        with pytest.raises(DeadLetterError):
            await letter.result(timeout=20)
        gates.setdefault("asked", asyncio.Event()).set()
        assert await tally.add(0) == 1
        await purge(system)
        broken.clear()
        await Operator(target).retry("letter")
        assert await letter.result(timeout=20) == 1
        assert await tally.value() == 1
        assert await purge(system) > 0
        assert await purge(system) == 0


async def test_a_reply_that_is_history_before_it_is_looked_for(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for another process, and is late, is told that nobody knows any more; he does not wait for ever."""
    async with ActorSystem(target) as there, ActorSystem(target) as here:
        assert await there.get(Tally, "t").add(1) == 1
        late = looks_late(here, monkeypatch)
        receipt = await here.get(Tally, "t").add.tell(1, "reply")
        waiting = asyncio.create_task(receipt.result())
        gates.setdefault("reply", asyncio.Event()).set()
        assert await there.get(Tally, "t").add(1) == 3
        await purge(there)
        late.set()
        with anyio.fail_after(20), pytest.raises(StorageError, match="retention"):
            await waiting


async def test_another_message_under_an_id_that_is_awaited(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is not told of what was sent later under the same id."""
    async with ActorSystem(target) as there, ActorSystem(target) as here:
        assert await there.get(Tally, "t").add(1) == 1
        late = looks_late(here, monkeypatch)
        receipt = await here.get(Tally, "t").add.options(id="same").tell(1, "reply")
        waiting = asyncio.create_task(receipt.result())
        gates.setdefault("reply", asyncio.Event()).set()
        assert await there.get(Tally, "t").add(1) == 3
        await purge(there)
        assert await there.get(Tally, "t").add.options(id="same")(100) == 103
        late.set()
        with anyio.fail_after(20), pytest.raises(StorageError, match="retention"):
            await waiting


async def test_an_id_that_is_used_anew(target: str) -> None:
    """Once an id is forgotten it is another message, whose turn sends others, though the first ones still wait."""
    async with ActorSystem(target) as system:
        boss, tally = system.get(Boss, "b"), system.get(Tally, "t")
        await boss.order.options(id="order")(tally, 1)
        assert await purge(system) == 1
        await boss.order.options(id="order")(tally, 2)
        assert await purge(system) == 1
        gates.setdefault("ordered", asyncio.Event()).set()
        assert await tally.add(0) == 3


async def test_a_receipt_that_is_read_late(target: str) -> None:
    """A turn that asks for what is no longer kept is told so, and goes on."""
    async with ActorSystem(target) as system:
        boss, tally = system.get(Boss, "b"), system.get(Tally, "t")
        await boss.begin(tally)
        await until(lambda: _has(tally, 5))
        assert await purge(system) == 2
        assert "retention may have passed" in await boss.collect()
        assert "retention may have passed" in await boss.collect()


async def _has(tally: Tally, total: int) -> bool:
    return await tally.value() == total
