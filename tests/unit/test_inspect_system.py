"""The read model on what a real system writes, from inside its own process and after a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path

from perdure import Actor, ActorSystem, Rejected, handler, step
from perdure.console.inspect import Inspector
from tests.unit.crashing import crashing

BEGUN = asyncio.Event()


@step
async def double(number: int) -> int:
    """A step."""
    return 2 * number


@step
async def hang() -> None:
    """A step that does not end."""
    BEGUN.set()
    await asyncio.Event().wait()


class Teller(Actor, kind="inspected.teller"):
    total: int = 0

    @handler
    async def add(self, number: int) -> int:
        """Two steps' worth of state."""
        self.total += await double(number)
        return self.total

    @handler
    async def refuse(self) -> None:
        """A handler's own no."""
        raise Rejected("closed")

    @handler
    async def stall(self) -> None:
        """A turn that does not end."""
        await hang()


class Manager(Actor, kind="inspected.manager"):
    @handler
    async def delegate(self, number: int) -> int:
        """An ask."""
        return await self.system.get(Teller, "t").add(number)

    @handler
    async def wait(self) -> None:
        """An ask that is not answered."""
        await self.system.get(Teller, "t").stall()


async def test_a_system_is_inspected_in_its_own_process(tmp_path: Path) -> None:
    """A dashboard in the service sees what came in, what each turn did and changed, and disturbs nothing."""
    path = tmp_path / "agents.db"
    async with ActorSystem(path) as system:
        assert await system.get(Manager, "m").delegate.options(id="d")(4) == 8
        inspector = Inspector(path)
        (message,) = inspector.actor("inspected.teller/t").messages
        assert (message.state, message.args.value(), message.cause and message.cause.id) == (
            "succeeded",
            {"number": 4},
            "d",
        )
        assert message.changes is not None
        assert message.changes.value() == {"total": 8}
        history = inspector.message("d")
        assert [(it.kind, it.name, it.status) for it in history.steps] == [("ask", "inspected.teller.add", "completed")]
        assert [str(it.message.actor) for it in history.caused] == ["inspected.teller/t"]
        assert [node.live for node in inspector.overview().nodes] == [True]
        assert await system.get(Teller, "t").add(1) == 10
    assert inspector.overview().nodes == ()


async def test_a_crashed_system_is_inspected(tmp_path: Path) -> None:
    """After a crash, people see where each turn stood, and that nobody works on it."""
    path = tmp_path / "agents.db"
    async with crashing(path) as system:
        await system.get(Manager, "m").wait.options(id="w").tell()
        inspector = Inspector(path)
        async with asyncio.timeout(30):
            await BEGUN.wait()
        teller = inspector.actor("inspected.teller/t").actor.wait
        assert teller is not None
        assert teller.text == "runs hang"
        manager = inspector.actor("inspected.manager/m").actor.wait
        assert manager is not None
        assert manager.text == "waits for the reply of inspected.teller/t.stall"
    assert [actor.wait and actor.wait.kind for actor in inspector.overview().actors] == ["orphaned", "orphaned"]
    assert [node.live for node in inspector.overview().nodes] == [False]
