"""The read model on what a real system writes, from inside its own process and after a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Rejected, handler, step
from perdure.console.inspect import Inspector
from tests.unit.crashing import crashing
from tests.unit.inspected import STORES, target_of
from tests.unit.observing import until

BEGUN: list[str] = []


@step
async def double(number: int) -> int:
    """A step."""
    return 2 * number


@step
async def hang() -> None:
    """A step that does not end."""
    BEGUN.append("here")
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


@pytest.fixture(params=STORES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a system."""
    return target_of(request, tmp_path)


async def test_a_system_is_inspected_in_its_own_process(target: str) -> None:
    """A dashboard in the service sees what came in, what each turn did and changed, and disturbs nothing."""
    async with ActorSystem(target) as system:
        assert await system.get(Manager, "m").delegate.options(id="d")(4) == 8
        inspector = Inspector(target)
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


async def test_a_crashed_system_is_inspected(target: str) -> None:
    """After a crash, people see where each turn stood, and that nobody works on it."""
    BEGUN.clear()
    async with crashing(target) as system:
        await system.get(Manager, "m").wait.options(id="w").tell()
        inspector = Inspector(target)
        await until(lambda: bool(BEGUN), 30)
        teller = inspector.actor("inspected.teller/t").actor.wait
        assert teller is not None
        assert teller.text == "runs hang"
        manager = inspector.actor("inspected.manager/m").actor.wait
        assert manager is not None
        assert manager.text == "waits for the reply of inspected.teller/t.stall"
    # a server notices a lost connection when it looks at it
    await until(lambda: [node.live for node in inspector.overview().nodes] == [False])
    assert [actor.wait and actor.wait.kind for actor in inspector.overview().actors] == ["orphaned", "orphaned"]
