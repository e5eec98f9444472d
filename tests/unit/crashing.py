"""A crash without a process: everything of a system is dropped where it stands, nothing is released or flushed.

And the few other looks behind the seam, so that tests need none of their own.
"""
# ruff: noqa: SLF001 - a crash takes what users may not touch

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from perdure import ActorSystem, Limits, Supervisor
from perdure.actors.host import Host
from perdure.actors.stops import Lost
from perdure.clock import Clock
from perdure.storage.postgres import PostgresStore
from perdure.storage.seal import Seal
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.store import Store
from perdure.supervision.balancer import Balancer


async def crash(system: ActorSystem) -> None:
    """End a system as SIGKILL would: what is committed stays, its node has not left, no lock or connection is its."""
    host, committer, store = host_of(system), system._committer, system._store
    assert committer is not None
    assert isinstance(store, SQLiteStore | PostgresStore)
    if system._watchdog is not None:
        system._watchdog.stop()
    host.closing = host.draining = True
    orders = system._overseer
    assert orders is not None
    orders._closing = True
    tasks = [*system._tasks, *host._tasks, *orders._tasks, committer._task]
    for activation in host.activations.values():
        if activation.turn is not None:
            activation.turn.stopped = Lost("crash")  # no orderly stop
        activation.gone = True
        tasks += [activation.worker, activation.starter]
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await store._disconnect()
    system._host = system._committer = None


@asynccontextmanager
async def crashing(
    target: str | os.PathLike[str] | Store,
    *,
    root: type[Supervisor] | None = None,
    limits: Limits | None = None,
    clock: Clock | None = None,
    seal: Seal | None = None,
) -> AsyncGenerator[ActorSystem]:
    """A system that ends in a crash instead of closing."""
    system = ActorSystem(target, root=root, limits=limits, clock=clock, seal=seal)
    await system.__aenter__()
    try:
        yield system
    finally:
        await crash(system)


def host_of(system: ActorSystem) -> Host:
    """What the actors of an open system live in."""
    assert system._host is not None
    return system._host


def balancer_of(system: ActorSystem) -> Balancer:
    """What gives and takes actors for an open system."""
    assert system._sweep is not None
    return system._sweep.balancer


def sqlite_of(system: ActorSystem) -> SQLiteStore:
    """The store of a system on SQLite."""
    assert isinstance(system._store, SQLiteStore)
    return system._store


def connection_of(system: ActorSystem) -> sqlite3.Connection:
    """The connection that an open system on SQLite writes with."""
    return sqlite_of(system)._raw


def disown_actors(system: ActorSystem) -> None:
    """Take every actor from its owner, as another node does that believes this one dead."""
    sqlite_of(system)._cache.clear()
    last = "SELECT max(number) FROM mailbox WHERE mailbox.actor = actor.id"
    connection_of(system).execute(
        f"UPDATE actor SET owner = NULL, epoch = epoch + 1, tail = max(tail, ifnull(({last}), 0))"
    )
