"""Carrying out orders on one node: stop in reverse start order, start in start order.

    an order is on disk ──► halt its members, youngest first ──► wait until its time ──► start, eldest first
                                                                     │ one does not start: judged, a new order
    opened, a node died ──► what is still to be restarted ───────────┘

An order is level-triggered: it is the state of the rows, not an event. Whoever finds an actor that nobody has and that
is `restarting` goes on where the last one was killed. Where a newer order is about some of the same actors, the older
leaves those to it, and goes on with the rest.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from perdure.errors import ActivationError, ChildError, FencedError, NodeBuried, PerdureError, StartError
from perdure.storage.committer import settle
from perdure.storage.writes import Adopted, Begin, Committed, Declare, Order, Placed, Yield
from perdure.supervision.declaring import declared
from perdure.supervision.outages import through_outages
from perdure.supervision.strategy import Ended, OneForOne
from perdure.supervision.trees import trees

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Sequence

    from perdure.actors.actor import Actor, ActorSpec
    from perdure.storage.committer import Committer
    from perdure.storage.records import Member
    from perdure.storage.store import Store
    from perdure.storage.writes import Settled, Spawn, Write
    from perdure.supervision.declaring import Declaring
    from perdure.supervision.floor import Floor
    from perdure.supervision.judge import Judge, Judgement

_LOG = logging.getLogger("perdure.supervision")
_LONGEST_WAIT_SECONDS = 3600.0
_LOOK_SECONDS = 0.05
_LOOK_LATE_SECONDS = 10.0


class Orders:
    """What carries out orders on one node."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        floor: Floor,
        judge: Judge,
        class_of: Callable[[str], type[Actor] | None],
        timestamp: Callable[[], float],
    ) -> None:
        self._store = store
        self._committer = committer
        self._floor = floor
        self._judge = judge
        self._class_of = class_of
        self._timestamp = timestamp
        self._serials = count(1)
        self._newest: dict[int, int] = {}
        """The serial of the newest order about an actor, while that is carried out."""
        self._late: dict[int, Placed] = {}
        """Supervisors that came into memory by themselves while an order was about them."""
        self._awaited: set[int] = set()
        """Actors that are started with a tree that does not stand yet; until then they handle nothing."""
        self._rising: set[asyncio.Task[None]] = set()
        """What starts these trees."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self.escalated: Callable[[str], None] = _LOG.critical

    def __repr__(self) -> str:
        return f"<Orders: {len(self._tasks)} under way>"

    # carrying out -----------------------------------------------------------------------------------------------------

    def carry_out(self, members: Sequence[Member]) -> asyncio.Task[None]:
        """Stop and start the actors of an order that is on disk. Their `life` says what is wanted of each."""
        return self._spawn(self._carry_out(members, self._mark(members)))

    def _mark(self, members: Iterable[Member]) -> int:
        """Make this the newest order about these actors."""
        serial = next(self._serials)
        for one in members:
            self._newest[one.actor] = serial
        return serial

    @contextmanager
    def _newest_about(self, members: Sequence[Member]) -> Generator[int]:
        """Be the newest order about these actors, with the serial it gives."""
        serial = self._mark(members)
        try:
            yield serial
        finally:
            self._unmark(members, serial)

    def _unmark(self, members: Iterable[Member], serial: int) -> None:
        for one in members:
            if self._newest.get(one.actor) == serial:
                del self._newest[one.actor]
                late = self._late.pop(one.actor, None)
                _ = late is not None and self.needs_raising(late)
                if not self._rising:  # or else `_let_go` sees to it
                    self._release(one.actor)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work beside others, cancelled when the system closes."""
        task = asyncio.get_running_loop().create_task(work, name="perdure-order")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self._closing:
            task.cancel()  # what is on disk is carried out where it is opened again
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, FencedError):
            return  # this node was buried: whoever finds the actors free goes on
        if error is not None and not self._closing:
            _LOG.error("an order was not carried out. This is a bug; start again", exc_info=error)

    async def _carry_out(self, members: Sequence[Member], serial: int) -> None:
        try:
            await through_outages(lambda: self._stop_of(members, serial))
            await through_outages(lambda: self._start_of(members, serial))
        finally:
            self._unmark(members, serial)

    async def _stop_of(self, members: Sequence[Member], serial: int) -> None:
        """Stop what an order is about; the root is not started again, and whoever ran it closes."""
        away = await self._store.elsewhere([one.actor for one in members])
        await self._stop(members, serial, away)

    async def _stop(self, members: Sequence[Member], serial: int, away: Collection[int] = ()) -> None:
        await self._halt(members, serial, away)
        for one in members:
            if one.actor == self._judge.top and one.life == "restarting" and one.actor not in away:
                self.escalated(one.reason or "")

    async def _start_of(self, members: Sequence[Member], serial: int) -> None:
        """Start what an order starts."""
        restarting = {one.actor: one for one in members if _is_restarting(one)}
        if self._judge.top in restarting:
            return
        for one in restarting.values():
            if one.supervisor not in restarting:
                await self._start_again(one, serial)
        await self.yield_up([actor for actor, one in restarting.items() if self._spec(one) is None])

    async def _start_again(self, one: Member, serial: int) -> None:
        """Start an actor and all below it, at its time; if it does not start, that is judged."""
        while (delay := (one.restart_at or 0.0) - self._timestamp()) > 0:  # noqa: ASYNC110  # a clock, not an event
            await asyncio.sleep(min(delay, _LONGEST_WAIT_SECONDS))
        try:
            await self._start(one, serial)
        except ActivationError as error:
            await self._did_not_start(one, error)

    async def _did_not_start(self, one: Member, error: ActivationError) -> None:
        failure, text = self._floor.failure(one.to, error)
        _LOG.warning("%s did not start: %s", one.to, error)

        async def write(judgement: Judgement) -> None:
            """Write the order; to go on as it is, an actor must start."""
            order = judgement.order
            if judgement.verdict.action == "resume":
                order.restart, order.restart_at = [one.actor], order.now + judgement.delay
            await self._order(order)

        await self._judge.settle(Ended(one.actor, "failure", None, failure, text, alone=False), write)

    async def _order(self, order: Order, *, wait: bool = False) -> None:
        settled = await self._committer.write(order)
        if isinstance(settled, Committed):
            members, settled.members = settled.members, ()  # carried out here, where it can be waited for
            self._floor.committed(settled)
            task = self.carry_out(members)
            if wait:
                await asyncio.shield(task)

    # stopping ---------------------------------------------------------------------------------------------------------

    async def obey(self) -> None:
        """Stop actors of this node that an order of another one is about; whoever finds them free goes on with it."""
        members = [one for one in await self._store.unwanted() if one.actor not in self._newest]
        if members:
            _ = self._spawn(self._obey(members, self._mark(members)))

    async def _obey(self, members: Sequence[Member], serial: int) -> None:
        try:
            await through_outages(partial(self._stop, members, serial))
        finally:
            self._unmark(members, serial)

    async def _halt(self, members: Sequence[Member], serial: int | None = None, away: Collection[int] = ()) -> None:
        """Stop actors in reverse start order; the children of a pool together, since nothing orders them.

        One that a newer order than this is about is left to that, which may have started it again. Those that are
        `away` are stopped by the node that has them.
        """
        specs = {one.actor: self._spec(one) for one in members}
        supervising = {one.supervisor for one in members}

        def pool(one: Member) -> int | None:
            """The supervisor of the pool that an actor is in."""
            above = specs.get(one.supervisor or 0)
            pooled = above is not None and isinstance(above.supervision, OneForOne) and not one.declared
            return one.supervisor if pooled and one.actor not in supervising else None

        together: list[Member] = []
        for one in reversed(members):
            if together and (pool(one) is None or pool(one) != pool(together[0])):
                await self._halt_together(together, away)
                together = []
            if serial is None or self._is_newest(one, serial):
                together.append(one)
        await self._halt_together(together, away)

    async def _halt_together(self, members: Sequence[Member], away: Collection[int]) -> None:
        halts = [self._floor.halt(one.actor, one.spec.shutdown) for one in members if one.actor not in away]
        await asyncio.gather(*halts, *(self._freed(one) for one in members if one.actor in away))

    async def _freed(self, one: Member) -> None:
        """Wait until the node that has an actor has stopped it, or died; then whoever finds it free starts it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (math.inf if one.spec.shutdown is None else one.spec.shutdown + _LOOK_LATE_SECONDS)
        while await self._store.elsewhere([one.actor]):
            if loop.time() > end:
                _LOG.error("%s was not stopped in time by the process that has it, which is told to", one.to)
                return
            await asyncio.sleep(_LOOK_SECONDS)

    # starting ---------------------------------------------------------------------------------------------------------

    async def _begin(self, members: Sequence[Member], serial: int) -> list[Member]:
        """Make actors this node's, in memory, and still; those that are to run and that nobody else has."""
        loop = asyncio.get_running_loop()
        mine = [one for one in members if self._is_newest(one, serial)]
        futures: list[asyncio.Future[Placed | bool]] = []
        for one in mine:
            futures.append(loop.create_future())
            self._committer.submit(Begin(one.actor, one.restart_at), self._begun, futures[-1])
        settled = await asyncio.gather(*futures)
        placed = zip(mine, settled, strict=True)
        return [one for one, place in placed if isinstance(place, Placed) and place.epoch is not None]

    def _is_newest(self, one: Member, serial: int) -> bool:
        """Whether no newer order is about an actor; if one is, that sees to it."""
        return self._newest.get(one.actor, serial) == serial

    def _begun(self, write: Write, settled: Settled | PerdureError, future: asyncio.Future[Any] | None) -> None:
        # held in the very moment it is this node's, or mail that comes with the same commit would be handled
        place = settled.place if isinstance(settled, Adopted) else settled
        if isinstance(place, Placed) and place.epoch is not None and self._spec(place) is not None:
            self._floor.hold(place)
        settle(write, settled, future)

    async def _start(self, one: Member, serial: int) -> None:
        for begun in await self._begin([one], serial):
            await self._raise(begun, serial)

    async def _raise(self, one: Member, serial: int) -> None:
        """Start an actor, then its children in order; if one of them does not start, stop them all again."""
        spec = self._spec(one)
        if spec is None or not self._is_newest(one, serial):
            return
        try:
            here = await self._floor.start(one.actor)
        except ActivationError:
            await self._floor.halt(one.actor, one.spec.shutdown)
            raise
        if not here or not self._is_newest(one, serial):
            return
        actor = self._floor.instance(one.actor)
        if actor is not None and spec.supervision is not None:
            await self._raise_children(one, actor, serial)
        if self._is_newest(one, serial):
            self._awaited.discard(one.actor)
            self._floor.go(one.actor)

    async def _raise_children(self, one: Member, actor: Actor, serial: int) -> None:
        family = await self._family(one, actor)
        # one whose backoff still runs is started when it is over, by `recover`
        now = self._timestamp()
        wanted = [child for child in family if runs(child) and (child.restart_at or 0.0) <= now]
        begun = await self._begin(wanted, serial)
        for child in begun:
            try:
                await self._raise(child, serial)
            except ActivationError as error:
                await self._halt([one, *begun], serial)
                raise StartError(f"{one.to}: its child {child.to} did not start: {error}") from error

    async def _family(self, one: Member, actor: Actor) -> Sequence[Member]:
        if not self._starts_children(one):
            return [child for child in await self._store.children(one.actor) if child.life == "restarting"]
        children = declared(one, cast("Declaring", actor), self._floor)
        try:
            settled = await self._committer.write(Declare(one.actor, tuple(children)))
        except ChildError as error:
            raise StartError(f"{one.to}: {error}") from error
        return settled.children if isinstance(settled, Adopted) else ()

    # what starts by itself --------------------------------------------------------------------------------------------

    async def boot(self, spawn: Spawn) -> None:
        """Start the root of the application's tree. Raises `StartError` if it, or one below it, does not start."""
        settled = await self._committer.write(spawn)
        member = await self._store.member(spawn.to)
        if not isinstance(settled, Placed) or member is None:
            raise StartError(f"{spawn.to}: could not be made: {settled!r}")
        self._judge.top = settled.actor
        try:
            with self._newest_about([member]) as serial:
                await self._start(member, serial)
        except ActivationError as error:
            raise error if isinstance(error, StartError) else StartError(str(error)) from error
        except NodeBuried:
            await self.boot(spawn)  # under another name now; others may have the root by then

    async def recover(self, *, everything: bool) -> None:
        """Go on with orders that nobody carries out; after a death, start supervisors that nobody has."""
        found = await self._store.restarting()
        if everything:
            everybody = await trees(self._store, self._supervises)
            raising = {one.actor for one in everybody if self._starts_children(one)}
            found += [
                one
                for one in everybody
                if one.actor in raising
                and one.supervisor not in raising
                and one.life == "running"
                and self._floor.instance(one.actor) is None
            ]
        families: dict[int, list[Member]] = {}
        for one in found:
            if one.actor not in self._newest and runs(one) and self._spec(one) is not None:
                families.setdefault(one.supervisor or -one.actor, []).append(one)
        tasks = [self._spawn(self._recover(family, self._mark(family))) for family in families.values()]
        if everything:
            self._rising.update(tasks)
            _ = self._spawn(self._let_go())

    async def expect(self) -> None:
        """Know who is to be started with its supervisor, before mail brings one of them into memory."""
        found = await trees(self._store, self._starts_children)
        # beside those that are awaited already: a query may have started one since
        self._awaited |= {one.actor for one in found if runs(one) and self._floor.instance(one.actor) is None}

    async def _let_go(self) -> None:
        """Wait for no tree any more, once all stand: what did not come about is another order's."""
        while self._rising:
            done, _ = await asyncio.wait(self._rising)
            self._rising -= done
        for actor in self._awaited - self._newest.keys():  # those are let go when the order about them is carried out
            self._release(actor)

    def _release(self, actor: int) -> None:
        """Let an actor go that came into memory by itself while its tree was awaited."""
        if actor in self._awaited:
            self._awaited.discard(actor)
            self._floor.go(actor)

    async def _recover(self, family: Sequence[Member], serial: int) -> None:
        try:
            for one in family:
                await through_outages(partial(self._start_again, one, serial))
        finally:
            self._unmark(family, serial)

    def needs_raising(self, place: Placed) -> bool:
        """Whether an actor that came into memory by itself has children to be started with it; they are."""
        if place.actor in self._awaited:
            return True
        if not self._starts_children(place) or self._closing:
            return False
        if place.actor in self._newest:
            self._late[place.actor] = place  # whoever is at it lets it go, or else it begins when that one is done
            return True
        self._newest[place.actor] = serial = next(self._serials)
        _ = self._spawn(self._raise_late(place, serial))
        return True

    async def _raise_late(self, place: Placed, serial: int) -> None:
        member = await through_outages(lambda: self._store.member(place.to))
        if member is not None:
            await self._recover([member], serial)

    def buried(self) -> None:
        """See `actors.relatives.Overseer.buried`. Others may be done with them while one here waits for something."""
        for task in list(self._tasks):
            task.cancel()
        self._newest.clear()  # a task that had not begun leaves its marks
        self._late.clear()

    async def resign(self) -> tuple[Sequence[Member], Collection[int]]:
        """Give up what is under way; see `actors.relatives.Overseer.resign`."""
        self._closing = True
        under_way = set(self._newest)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._floor.supervises():
            return (), under_way
        try:
            here = await trees(self._store, self._supervises, lambda one: self._floor.instance(one.actor) is not None)
        except PerdureError as error:
            _LOG.error("the trees are stopped in no order: %s", error)
            return (), under_way
        return here, under_way

    async def yield_up(self, actors: Collection[int]) -> None:
        """Leave what is to be started to whoever finds it free."""
        if actors:
            await self._committer.write(Yield(tuple(actors)))

    # what classes say -------------------------------------------------------------------------------------------------

    def _spec(self, one: Member | Placed) -> ActorSpec | None:
        """What is known of an actor's class; none if no imported module defines it."""
        cls = self._class_of(one.to.kind)
        return None if cls is None else cls.__perdure__

    def _supervises(self, one: Member) -> bool:
        spec = self._spec(one)
        return spec is not None and spec.supervision is not None

    def _starts_children(self, one: Member | Placed) -> bool:
        spec = self._spec(one)
        return spec is not None and spec.raises_children


def _is_restarting(one: Member) -> bool:
    return one.life == "restarting" and one.status != "stopped"


def runs(one: Member) -> bool:
    """Whether a child is running, or about to."""
    return one.status != "stopped" and one.life in {"running", "restarting"}
