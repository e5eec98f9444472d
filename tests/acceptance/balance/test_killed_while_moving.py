"""A process is killed while actors move to a newcomer, under load, on SQLite and on PostgreSQL.

The client that sends outlives them all. Checked at the end: everything was handled once and in the order sent, and a
step that ran again had been interrupted, and had the same id.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

import pytest

from perdure import ActorSystem, Receipt
from tests.acceptance.children import PATIENCE_SECONDS
from tests.acceptance.many.fleet import check_steps, fleet
from tests.acceptance.many.node import LEASE_SECONDS, Accountant, shared
from tests.unit.crashing import host_of
from tests.unit.observing import until

IDLE = [f"idle{number}" for number in range(300)]
BUSY = [f"busy{number}" for number in range(12)]


class Sender:
    """Who sends to the busy ones without end, and remembers what."""

    def __init__(self, client: ActorSystem) -> None:
        self._client = client
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.receipts: list[Receipt[int]] = []
        self.enough: asyncio.Event = asyncio.Event()

    async def run(self) -> None:
        """Send, until it is enough."""
        while not self.enough.is_set():
            for key in BUSY:
                number = len(self.receipts) + 1
                self.sent[key].append(number)
                self.receipts.append(await self._client.get(Accountant, key).add.tell(number, None))
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("victim", [0, 2], ids=["a giver", "the taker"])
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_killed_while_actors_move(
    tmp_path: Path, request: pytest.FixtureRequest, store: str, victim: int
) -> None:
    """Wherever an actor is on its way, it is found, and its mail with it."""
    target = f"sqlite:///{tmp_path / 'a.db'}" if store == "sqlite" else request.getfixturevalue("postgres")
    async with (
        ActorSystem.client(target, limits=shared(LEASE_SECONDS)) as client,
        fleet(target, tmp_path, 1, 2) as nodes,
    ):
        await asyncio.gather(*(client.get(Accountant, key).confirm(0) for key in IDLE))
        sender = Sender(client)
        sending = asyncio.create_task(sender.run())
        before = set(await host_of(client).store.loads())
        nodes.start()

        async def moves() -> bool:
            loads = await host_of(client).store.loads()
            return any(count > 20 for node, count in loads.items() if node not in before)

        await until(moves, PATIENCE_SECONDS)
        await nodes.kill(victim)
        await asyncio.sleep(2 * LEASE_SECONDS)
        sender.enough.set()
        await sending
        number = len(sender.receipts)
        try:
            async with asyncio.timeout(3 * LEASE_SECONDS + PATIENCE_SECONDS):
                assert [await receipt.result() for receipt in sender.receipts] == list(range(1, number + 1))
                seen = {key: await client.get(Accountant, key).all() for key in BUSY}
                idle = await asyncio.gather(*(client.get(Accountant, key).all() for key in IDLE))
        except TimeoutError:
            raise AssertionError(f"not done: {nodes}; {nodes.errors()[-3_000:]}") from None
    assert seen == sender.sent
    assert idle == [[0]] * len(IDLE)
    check_steps(tmp_path, number, nodes)
