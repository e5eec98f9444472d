"""What time it is where several machines work on one database."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import pytest
from attrs import define

from perdure import Actor, ActorSystem, handler
from perdure.console.inspect import Inspector
from perdure.storage.postgres import PostgresStore
from perdure.storage.postgres_clock import ServerClock
from perdure.testing.conformance.nodes import started

HOUR = 3600.0


@define
class Machine:
    """A machine and a server, whose clocks go as the test says."""

    ticks: float = 0.0
    wall: float = 1000.0
    server: float = 1000.0

    def clock(self) -> ServerClock:
        """The server's clock, as this machine knows it."""
        return ServerClock("here", lambda: self.wall, lambda: self.ticks)

    def passes(self, seconds: float) -> None:
        """Time."""
        self.ticks += seconds
        self.wall += seconds
        self.server += seconds

    def read(self, there: float, back: float) -> float:
        """The server reads its clock; the way to it and the way back take so long."""
        self.passes(there)
        found = self.server
        self.passes(back)
        return found


@pytest.mark.parametrize("off", [-HOUR, 0, HOUR])
@pytest.mark.parametrize(("there", "back"), [(0, 0), (0.5, 0.25), (0, 2), (2, 0)])
def test_the_time_is_never_early(off: float, there: float, back: float) -> None:
    """Nothing falls due before its time by the server's clock, however far off the machine's is, and however slow."""
    machine = Machine(server=1000.0 + off)
    clock = machine.clock()
    clock.compare(lambda: machine.read(there, back))
    assert machine.server - back == clock.now()
    machine.passes(10)
    assert machine.server - back == clock.now()


@pytest.mark.parametrize(("first", "second", "late"), [(2, 0.5, 0.5), (0.5, 2, 0.5)])
def test_a_quicker_answer_says_more(first: float, second: float, late: float) -> None:
    """A clock that was read through a busy network is put right by the next answer, and not wrong by a slow one."""
    machine = Machine()
    clock = machine.clock()
    clock.compare(lambda: machine.read(0, first))
    clock.compare(lambda: machine.read(0, second))
    assert machine.server - clock.now() == late


@pytest.mark.parametrize("by", [-HOUR, -1.0, 1.0, HOUR])
def test_a_server_whose_clock_is_set(by: float) -> None:
    """Timers follow the server's clock, whatever happens to it, by the next heartbeat."""
    machine = Machine()
    clock = machine.clock()
    clock.compare(lambda: machine.read(0.125, 0.125))
    machine.server += by
    clock.compare(lambda: machine.read(0.125, 0.125))
    assert machine.server - clock.now() == 0.125


def test_a_machine_whose_clock_is_set() -> None:
    """Somebody who sets a machine's clock fires no timer by that."""
    machine = Machine()
    clock = machine.clock()
    clock.compare(lambda: machine.read(0, 0))
    machine.wall += HOUR
    assert clock.now() == machine.server
    assert clock.ahead == -HOUR


def test_a_clock_that_is_off_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """People hear that a machine needs NTP; not at every heartbeat, and not because the network is slow."""
    machine = Machine(server=1000.0 - 5)
    clock = machine.clock()

    def told(*compared: tuple[float, float]) -> list[str]:
        caplog.clear()
        for there, back in compared:
            clock.compare(lambda there=there, back=back: machine.read(there, back))
        return [record.message for record in caplog.records if record.levelno == logging.WARNING]

    (first,) = told((0, 0), (0, 0), (0, 0.5))
    assert "5.0 s ahead of the server's" in first
    machine.wall -= 5
    assert told((0, 0), (3, 3)) == []
    machine.wall -= 5
    (again,) = told((0, 0), (0, 0))
    assert "5.0 s behind the server's" in again


# systems --------------------------------------------------------------------------------------------------------------


class Bell(Actor, kind="clock.bell"):
    rung: list[str] = []

    @handler
    async def ring(self, name: str) -> list[str]:
        self.rung.append(name)
        return self.rung


def set_clock(patch: pytest.MonkeyPatch, by: float) -> None:
    """Have the machine's clock be off from now on."""
    right = time.time
    patch.setattr(time, "time", lambda: right() + by)


async def test_a_machine_an_hour_ahead_fires_nobodys_timers(
    postgres: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A reminder for later does not come at once because one machine believes that it is later already."""
    async with ActorSystem(postgres) as right:
        await right.get(Bell, "b").ring.options(id="later", delay=timedelta(minutes=30)).tell("later")
    set_clock(monkeypatch, HOUR)
    async with ActorSystem(postgres) as ahead:
        bell = ahead.get(Bell, "b")
        await bell.ring.options(id="soon", delay=0.1).tell("soon")
        assert await ahead.receipt("soon", Bell.ring).result(timeout=30) == ["soon"]
        assert await bell.ring("now") == ["soon", "now"]
    assert "s ahead of the server's" in caplog.text


async def test_a_machine_an_hour_behind_keeps_nobody_waiting(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one process is to do in a moment, another does then, and not an hour later by its own clock."""
    async with ActorSystem.client(postgres) as right:  # it leaves timers to others
        await right.get(Bell, "b").ring.options(id="soon", delay=0.1).tell("soon")
    set_clock(monkeypatch, -HOUR)
    async with ActorSystem(postgres) as behind:
        assert await behind.receipt("soon", Bell.ring).result(timeout=30) == ["soon"]


async def test_every_heartbeat_reads_the_servers_clock(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was suspended, or a server whose clock was set, costs no more than one heartbeat."""
    node = await started(PostgresStore(postgres))
    set_clock(monkeypatch, HOUR)
    lost = ServerClock("one that has read nothing yet", time.time, time.monotonic)
    monkeypatch.setattr(node.store, "_clock", lost)
    assert lost.ahead > -1
    await node.store.peers()
    assert lost.ahead < -HOUR / 2
    assert node.store.timestamp() == pytest.approx(time.time() - HOUR, abs=HOUR / 2)
    await node.store.close()


async def test_the_console_goes_by_the_servers_clock(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks from a machine an hour ahead is not told that all of it was an hour ago."""
    async with ActorSystem(postgres) as system:
        await system.get(Bell, "b").ring.options(id="now")("now")
    right = time.time()
    set_clock(monkeypatch, HOUR)
    inspector = Inspector(postgres)
    assert inspector.overview().read == pytest.approx(right, abs=HOUR / 2)
