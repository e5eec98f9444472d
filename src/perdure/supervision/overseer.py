"""The overseer of a node: it carries out orders, and does with children what their supervisors ask for.

What is asked changes the database first, like any order, and answers when this node has done it.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.errors import ActivationError, ChildError, FencedError, StorageError
from perdure.storage.writes import Adopted, Committed, Order
from perdure.supervision.orders import Orders, runs
from perdure.supervision.outages import through_outages

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from perdure.storage.records import Address, Member
    from perdure.storage.writes import Adopt

T = TypeVar("T")


class Overseer(Orders):
    """Orders, and what supervisors ask about their children."""

    async def _seen_through(self, work: Coroutine[Any, Any, T]) -> T:
        """Have something done to its end, whoever waits for it being cancelled or not."""
        loop = asyncio.get_running_loop()
        # no turn: not as an argument of create_task, which older task factories do not take
        task = Context().run(loop.create_task, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_heard)
        return await asyncio.shield(task)

    async def start_child(self, adopt: Adopt) -> Address:
        """Start a child at run time. Raises `ChildError`, or `ActorExists`."""
        return await self._seen_through(self._start_child(adopt))

    async def _start_child(self, adopt: Adopt) -> Address:
        future: asyncio.Future[Adopted] = asyncio.get_running_loop().create_future()
        self._committer.submit(adopt, self._begun, future)
        settled = await future
        (one,) = settled.children
        if settled.place is None or settled.place.epoch is None:
            return one.to  # stopped meanwhile, or another node's
        try:
            with self._newest_about([one]) as serial:
                await self._start_begun(one, serial)
        except ActivationError as error:
            await self._order(Order(self._timestamp(), discard=[one.actor], reason="it did not start"), wait=True)
            raise ChildError(f"{one.to} did not start, and is forgotten: {error}", "start_failed") from None
        return one.to

    async def _start_begun(self, one: Member, serial: int) -> None:
        """Start an actor that is held here already; anew if the database was away."""
        try:
            await self._raise(one, serial)
        except FencedError:
            raise
        except StorageError:
            await through_outages(partial(self._start, one, serial))

    async def _child(self, supervisor: int, actor: Address) -> Member:
        one = await self._store.member(actor)
        if one is None or one.supervisor != supervisor:
            raise ChildError(f"{actor} is no child of this supervisor.", "not_found")
        return one

    async def terminate_child(self, supervisor: int, actor: Address) -> None:
        """Stop a child and all below it; its mail and its place are kept. Quiet if it does not run."""
        one = await self._child(supervisor, actor)
        if runs(one):
            await self._order(Order(self._timestamp(), terminate=[one.actor], reason="shutdown"), wait=True)

    async def restart_child(self, supervisor: int, actor: Address) -> None:
        """Start a child that was stopped, failed or ended. Raises `ChildError` if it runs or does not start."""
        await self._seen_through(self._restart_child(supervisor, actor))

    async def _restart_child(self, supervisor: int, actor: Address) -> None:
        one = await self._child(supervisor, actor)
        _refuse_running(one)
        now = self._timestamp()
        order = Order(now, restart=[one.actor], cleared=[-one.actor], restart_at=now, reason="restarted")
        settled = await self._committer.write(order)
        if not isinstance(settled, Committed):
            raise ChildError(f"{actor} could not be restarted: {settled!r}", "start_failed")
        (one,) = [member for member in settled.members if member.actor == one.actor]
        try:
            with self._newest_about(settled.members) as serial:
                away = await self._store.elsewhere([member.actor for member in settled.members])
                # one that failed or ended just now may still be stopping
                await through_outages(partial(self._halt, settled.members, serial, away))
                await through_outages(partial(self._start, one, serial))
        except ActivationError as error:
            await self._order(Order(now, terminate=[one.actor], reason="it did not start"), wait=True)
            raise ChildError(f"{actor} did not start: {error}", "start_failed") from None

    async def delete_child(self, supervisor: int, actor: Address) -> None:
        """Forget a child that does not run; its mail becomes dead letters. Raises `ChildError` if it runs."""
        one = await self._child(supervisor, actor)
        _refuse_running(one)
        await self._order(Order(self._timestamp(), discard=[one.actor], reason="deleted"), wait=True)

    async def children(self, supervisor: int) -> list[Member]:
        """A supervisor's children, in start order."""
        return await self._store.children(supervisor)


def _heard(task: asyncio.Task[Any]) -> None:
    """Whoever asked may have gone; then nobody hears how it ended."""
    if not task.cancelled():
        task.exception()


def _refuse_running(one: Member) -> None:
    if one.status != "stopped" and one.life == "running":
        raise ChildError(f"{one.to} is running. Terminate it first.", "running")
    if one.status != "stopped" and one.life == "restarting":
        raise ChildError(f"{one.to} is being restarted.", "restarting")
