"""The same program on both databases, and the same documents of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from click.testing import CliRunner

from perdure import Actor, ActorSystem, Child, Limits, Rejected, Retry, Supervisor, fan_out, handler, step
from perdure.console.cli import main
from tests.unit.observing import until

ONCE = Retry(1)
STALLED: list[str] = []


@step
async def double(number: int) -> int:
    """A step."""
    return 2 * number


@step(retry=ONCE)
async def fall() -> None:
    """A step that fails."""
    raise LookupError("nothing is \0 there: \ud800")


@step
async def hang() -> None:
    """A step that does not end."""
    STALLED.append("here")
    await asyncio.Event().wait()


class Clerk(Actor, kind="alike.clerk"):
    total: int = 0

    @handler
    async def add(self, number: int) -> int:
        """Steps, side by side."""
        for one in await fan_out(double, range(number)):
            self.total += one
        return self.total

    @handler
    async def refuse(self) -> None:
        """A handler's own no."""
        raise Rejected("closed")

    @handler
    async def stall(self) -> None:
        """A turn that does not end."""
        await hang()


class Desk(Actor, kind="alike.desk"):
    @handler
    async def serve(self, number: int) -> int:
        """An ask, and a message on the side."""
        await self.system.get(Clerk, "second").add.tell(1)
        return await self.system.get(Clerk, "first").add(number)


class Till(Actor, kind="alike.till", retry=ONCE):
    @handler
    async def open(self) -> None:
        """A step that fails."""
        await fall()

    @handler
    async def close(self) -> None:
        """A failure whose text not every database can hold."""
        raise ValueError("broken \0 \ud800 é")


class Office(Supervisor):
    def children(self) -> Iterator[Child[Actor]]:
        yield Child(Desk, "desk")
        yield Child(Clerk, "first").options(restart="transient", significant=False)


@asynccontextmanager
async def at_work(target: str) -> AsyncGenerator[None]:
    """A system in which there is one of everything that people look for."""
    STALLED.clear()
    async with ActorSystem(target, root=Office, limits=Limits(restarts=1)) as system:
        assert await system.get(Desk, "desk").serve.options(id="order")(3) == 6
        refused = await system.get(Clerk, "first").refuse.options(id="no").tell()
        await until(lambda: _is(refused, "rejected"))
        later = system.get(Clerk, "first").add.options(id="later", delay=3600)
        await later.tell(9)
        for number, send in enumerate((system.get(Till, "t").open, system.get(Till, "t").close)):
            dead = await send.options(id=f"d{number}").tell()
            await until(lambda dead=dead: _is(dead, "dead"))
        await system.get(Till, "t").open.options(id="kept").tell()
        await system.get(Clerk, "second").stall.options(id="stalled").tell()
        await system.get(Clerk, "second").add.options(id="behind").tell(1)
        await until(lambda: bool(STALLED))
        yield


async def _is(receipt: Any, status: str) -> bool:  # noqa: ANN401  # a receipt of anything
    return await receipt.status() == status


LOOKS = [
    "ps",
    "ps --kind alike.clerk --limit 1",
    "show alike.clerk/first",
    "show alike.clerk/second",
    "show alike.desk/desk",
    "show alike.till/t",
    "journal order",
    "journal stalled",
    "journal later",
    "journal d0",
    "journal d1",
    "tree",
    "dead",
    "dead --error ValueError",
    "dead --error LookupError",
    "dead --error KeyError",
]
DEEDS = ["dead retry d0 nothing order", "dead purge d1 order", "restart alike.till/t", "restart alike.desk/desk"]


async def documents(target: str, commands: list[str]) -> list[Any]:
    """What commands say: to programs, and to people if they say no."""
    found: list[Any] = []
    for command in commands:
        call = [*command.split(), "--json", "--db", target]
        result = await asyncio.to_thread(CliRunner().invoke, main, call)
        assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
        said = plain(json.loads(result.stdout)) if result.stdout else result.stderr
        found.append((command, result.exit_code, said))
    return found


def plain(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    """A document without what differs from one run to the next: times, and names of places and processes."""
    if isinstance(value, list):
        return [plain(one) for one in cast(list[Any], value)]
    if isinstance(value, dict):
        members = cast(dict[str, Any], value)
        names = {"database", "id"} if "pid" in members else {"database", "seq"}
        return {name: "" if name in names else plain(one) for name, one in members.items()}
    return 0.0 if isinstance(value, float) else value


async def test_what_is_said_of_a_system_is_the_same_wherever_it_lies(tmp_path: Path, postgres: str) -> None:
    """Who moves to PostgreSQL takes his scripts with him, and his habits."""
    live: list[Any] = []
    still: list[Any] = []
    for target in (str(tmp_path / "agents.db"), postgres):
        async with at_work(target):
            live.append(await documents(target, LOOKS))
        still.append(await documents(target, [*LOOKS, *DEEDS, *LOOKS]))
    for looks in (live, still):
        for file, schema in zip(*looks, strict=True):
            assert file == schema
    said = {command: document for command, _, document in live[1]}
    assert [node["live"] for node in said["ps"]["nodes"]] == [True]
    assert [one["id"] for one in said["dead --error ValueError"]["messages"]] == ["d1"]
    assert [one["id"] for one in said["dead --error LookupError"]["messages"]] == ["d0"]
    assert said["journal stalled"]["wait"]["text"] == "runs hang"
    assert len(said["journal order"]["caused"]) == 2
    assert said["show alike.clerk/first"]["actor"]["delayed"] == 1
    assert said["tree"]["held_count"] == 1
    assert {command: code for command, code, _ in still[1] if code} == {
        DEEDS[0]: 1,
        DEEDS[1]: 1,
        DEEDS[3]: 1,
        "journal d1": 1,
    }
