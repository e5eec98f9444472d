"""The actors of one node: delivers committed mail to activations, brings actors into memory and lets them go.

Everything that leaves a commit passes through here: appended messages go to mailboxes, outcomes to whoever waits,
completions to the turns they belong to, actors made runnable into memory.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from typing import TYPE_CHECKING, Any

from perdure.actors.activation import Activation
from perdure.actors.blame import BlameGate
from perdure.actors.effects import watch_effects
from perdure.actors.floor import Floor
from perdure.actors.giving import Giving
from perdure.actors.idle import turns_with_timers
from perdure.actors.leaving import Leaving
from perdure.actors.names import IdSource, check_name, kinds
from perdure.actors.outcomes import Outcomes
from perdure.actors.queries import Queries
from perdure.actors.ref import Reference
from perdure.actors.sealing import close_state
from perdure.actors.sending import Sending
from perdure.actors.slots import Slots
from perdure.actors.stacks import stack_of_task
from perdure.actors.stops import Evicted
from perdure.actors.workers import Workers
from perdure.errors import (
    FencedError,
    NodeBuried,
    PerdureError,
)
from perdure.storage.records import Address
from perdure.storage.writes import Appended, Beat, Claim, Committed, Placed, Spawn
from perdure.warning_types import IdleTurnWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping

    from perdure.actors.actor import Actor
    from perdure.actors.handler import Query
    from perdure.actors.relatives import Overseer
    from perdure.actors.turn import Turn
    from perdure.limits import Limits
    from perdure.storage.committer import Committer
    from perdure.storage.hints import Heard
    from perdure.storage.records import Completion
    from perdure.storage.seal import Seal
    from perdure.storage.store import Store
    from perdure.supervision.judge import Judge
    from perdure.supervision.strategy import BlameRule, Retry
    from perdure.system import ActorSystem

_LOG = logging.getLogger("perdure.actors")
_LOADED_MAIL = 100
_GROWN_MAIL = 10
_RELOAD_SECONDS = 0.5
_LOOKED_AT = 2_000
"""Actors that are looked at together for whether they may leave memory: half a millisecond, twenty times a second."""


class Host(Sending):
    """What runs the actors of one system."""

    def __init__(
        self, system: ActorSystem, store: Store, committer: Committer, limits: Limits, retry: Retry, rule: BlameRule
    ) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.system = system
        self.store = store
        self.committer = committer
        self.limits = limits
        self.retry = retry
        self.blame = BlameGate(rule)
        self.closing = False
        self.draining = False
        """Whether this node gives its actors up, and takes none any more."""
        self.leaving: Leaving | None = None
        self._departure: asyncio.Task[None] | None = None
        self.left = asyncio.Event()
        if self.loop.get_debug():
            watch_effects()
        self.stale: Callable[[], bool] = bool
        """Whether this node may begin nothing, for it may soon be taken for dead."""
        self.renewal: Callable[[], asyncio.Future[None]] = self.loop.create_future
        self.floor = Floor(self)
        self.giving = Giving(self)
        self.failed_starts: dict[Address, int] = {}
        self.judge: Judge
        self.overseer: Overseer
        self.started = 0.0
        """When this node was started: what others had sent by then and is not handled, an earlier process left."""
        self.node = ""
        self.tags: frozenset[str] = frozenset()
        self.seal: Seal | None = None
        self.ids = IdSource()
        self.activations: dict[int, Activation] = {}
        self._by_address: dict[Address, Activation] = {}
        self._loading: dict[int, Activation] = {}
        self._load_wanted: asyncio.Event = asyncio.Event()
        self._seeking: set[Turn] = set()
        self._lost: dict[int, Activation] = {}
        """The newest activations of actors that were lost, and that were not loaded since."""
        self.outcomes = Outcomes(store, self.spawn_task)
        self.queries = Queries(self)
        self.slots = Slots(self)
        self.client = False
        """Whether this node runs no actor, and only sends and asks."""
        self.interrupted: set[int] = set()
        """Messages whose handler was cancelled from outside once: the next time it counts as its own doing."""
        self.differed: dict[int, int] = {}
        """How often a replay of a message's turn has differed from its journal, and was begun again for that."""
        self.workers = Workers()
        self._round: list[Activation] = []
        """Who is still to be looked at for whether he may leave memory."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<Host of {len(self.activations)} actors on node {self.node}>"

    def runs(self, kind: str) -> bool:
        """Whether this node takes actors of a kind. Called from the store's thread."""
        return not (self.draining or self.client) and self.can_run(kind)

    def can_run(self, kind: str) -> bool:
        """Whether a kind's class is here, and so is all that it needs."""
        return self.runnable(kind) is not None

    def runnable(self, kind: str) -> type[Actor] | None:
        """The class of a kind; none if it is not here, or needs what this node has not."""
        cls = kinds.get(kind)
        return cls if cls is not None and cls.__perdure__.needs <= self.tags else None

    def needs(self, kind: str) -> frozenset[str] | None:
        """What a node must have to run a kind; none if its class is not here."""
        cls = kinds.get(kind)
        return None if cls is None else cls.__perdure__.needs

    def spawn_task(self, coroutine: Coroutine[Any, Any, object], name: str) -> None:
        """Run something in the background, with a reference that keeps it alive."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, FencedError):  # or else whoever has it by now goes on with it
            _LOG.error("%s: %s", task.get_name(), error, exc_info=None if isinstance(error, PerdureError) else error)

    # actors -----------------------------------------------------------------------------------------------------------

    def spawning(self, cls: type[Actor], key: str, state: Mapping[str, object], parent: int | None) -> Spawn:
        """An actor's beginning. Raises `StateError`, `EncodingError` or `KeyFormatError`."""
        spec = cls.__perdure__
        spec.check_state(state)
        instance = cls(**state)
        initial = spec.state.text({name: instance.__dict__[name] for name in state}, spec.cls.__name__)
        to = Address(spec.kind, check_name(key, "key"))
        if self.seal is not None:
            initial = close_state(self.seal, initial, to, spec, compared=True)
        return Spawn(to, spec.version, spec.state.name, initial, self.timestamp(), parent)

    async def spawn(self, cls: type[Actor], key: str | None, state: Mapping[str, object]) -> Reference:
        """Begin an actor from outside any turn."""
        spawn = self.spawning(cls, self.ids.next() if key is None else key, state, None)
        await self.committer.write(spawn)
        self.floor.spawned([spawn])
        return Reference(cls, spawn.to, self)

    async def query(self, ref: Reference, query: Query, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """See `Port.query`."""
        self.committer.check_loop()
        return await self.queries.ask(ref, query, args, kwargs)

    def find(self, address: Address) -> Activation | None:
        """An actor's activation, if it is in memory here."""
        found = self._by_address.get(address)
        return None if found is None or found.gone else found

    def wake(self, places: Iterable[Placed]) -> None:
        """Bring actors that became this node's into memory; they go on by themselves."""
        for place in places:
            if place.epoch is not None:
                self.activation(place).wake()

    def deliver(self, appended: Appended) -> None:
        """Give a committed message to its mailbox, if it is here."""
        if not appended.numbered:
            self.system.due_changed()
        elif appended.place.epoch is not None:
            self.activation(appended.place).deliver(appended.mail)

    def activation(self, place: Placed, *, held: bool = False) -> Activation:
        """The activation of an actor that is this node's; a new one that is held begins nothing yet."""
        activation = self.activations.get(place.actor)
        if activation is not None and activation.epoch == place.epoch and not activation.gone:
            return activation
        if activation is not None:
            activation.lose(FencedError(f"{place.to}: claimed anew under epoch {place.epoch}"))
        cls = kinds[place.to.kind]
        activation = self.activations[place.actor] = Activation(self, cls.__perdure__, place)
        self._by_address[place.to] = activation
        activation.still = held or self.overseer.needs_raising(place)
        if place.fresh:
            self._lost.pop(place.actor, None)  # nothing of it is on disk
        else:
            self.reload(activation)
        return activation

    def reload(self, activation: Activation) -> None:
        """Read an actor's state and mail again; many at a time."""
        activation.unload()
        self._loading[activation.actor] = activation
        self._load_wanted.set()

    def beat(self) -> Beat:
        """This node's next sign of life."""
        return Beat(len(self.activations), self.draining)

    async def load_loop(self) -> None:
        """Load what waits to be loaded, for ever."""
        while True:
            await self._load_wanted.wait()
            self._load_wanted.clear()
            await asyncio.sleep(0)
            wanted, self._loading = self._loading, {}
            try:
                await self._see_written(wanted)
                found = {loaded.actor: loaded for loaded in await self.store.load(list(wanted), _LOADED_MAIL)}
            except PerdureError as error:
                _LOG.error("actors could not be loaded: %s", error)
                for activation in wanted.values():
                    activation.lose(error)
                continue
            for actor, activation in wanted.items():
                if actor in found and found[actor].epoch == activation.epoch:
                    activation.loaded(found[actor])
                else:
                    activation.lose(FencedError(f"{activation.address}: belongs to another node by now"))

    async def _see_written(self, wanted: Collection[int]) -> None:
        """Wait for what activations that were lost had submitted: it may yet be committed, under the same epochs."""
        if not self._lost.keys().isdisjoint(wanted):
            for actor in wanted:
                self._lost.pop(actor, None)
            await self.committer.write(Claim(limit=0))  # commits are in the order submitted

    def forget(self, activation: Activation) -> None:
        """An activation has left memory."""
        if self.activations.get(activation.actor) is activation:
            del self.activations[activation.actor]
            del self._by_address[activation.address]

    def lost(self, activation: Activation, error: PerdureError) -> None:
        """An activation may write nothing any more; unless another node has its actor, it is loaded anew."""
        self.forget(activation)
        if isinstance(error, FencedError) or self.draining:
            return
        self._lost[activation.actor] = activation
        asyncio.get_running_loop().call_later(_RELOAD_SECONDS, self._again_if_lost, activation)

    def is_lost(self, actor: int) -> bool:
        """Whether an actor of this node was lost, to an outage, and was not loaded since."""
        return actor in self._lost

    def _again_if_lost(self, activation: Activation) -> None:
        if self._lost.get(activation.actor) is activation:  # or another came in its place, under an epoch of its own
            self.again(activation)

    def again(self, activation: Activation) -> None:
        """Have an actor that is still this node's in memory again, in another activation than the one it had.

        One that was being stopped comes back still, to be stopped again.
        """
        if not self.draining and activation.actor not in self.activations:
            place = Placed(activation.actor, activation.address, activation.epoch)
            self.activation(place, held=activation.halted).wake()

    # after a commit ---------------------------------------------------------------------------------------------------

    def committed(self, committed: Committed) -> None:
        """Let out what a segment's commit released."""
        for appended in committed.appended:
            self.deliver(appended)
        for seq, outcome in committed.ended:
            self.outcomes.ended(seq, outcome)
        if committed.completions:
            self.completions(committed.completions)
            self.wake(committed.woken)
        if committed.members:
            self.overseer.carry_out(committed.members)

    def completions(self, completions: Iterable[Completion]) -> None:
        """Tell turns of this node what others completed for them."""
        for completion in completions:
            activation = self.activations.get(completion.actor)
            if activation is not None:
                activation.completed(completion)

    # housekeeping -----------------------------------------------------------------------------------------------------

    def passivate(self) -> None:
        """Let actors that have been idle leave memory, and turns that wait long; so many are looked at each time."""
        if self.draining:
            return
        now = self.timestamp()
        if not self._round:
            self._round = list(self.activations.values())
        some, self._round = self._round[:_LOOKED_AT], self._round[_LOOKED_AT:]
        waiting: list[Turn] = []
        for activation in some:
            turn = activation.turn
            if activation.gone:  # since the round began
                continue
            if turn is not None:
                if now - max(turn.last_change, turn.timed) > self.limits.evict_after and turn.may_wait_durably():
                    waiting.append(turn)
                elif now - turn.last_change > self.limits.idle_warning and turn.idles and not turn.idleness_told:
                    turn.idleness_told = True
                    self._tell_idleness(activation, turn)
            elif activation.idle and now - activation.idle_since > activation.spec.passivate_after:
                self.spawn_task(activation.retire(), f"perdure passivation of {activation.address}")
        if waiting:
            self._let_go(waiting, now)

    def _let_go(self, waiting: Iterable[Turn], now: float) -> None:
        """Let turns leave memory that wait long, but those that would not time out there."""
        timed = turns_with_timers()
        for turn in waiting:
            if turn in timed:
                turn.timed = now
            elif turn.waits_durably():
                self.loop.call_soon(_evict, turn)  # if the next pass shows the same (see `waits_in_perdure`)

    def message_ended(self, message: int) -> None:
        """Nothing is to be known of its attempts any more."""
        self.interrupted.discard(message)
        self.differed.pop(message, None)

    def _tell_idleness(self, activation: Activation, turn: Turn) -> None:
        if activation.worker is None:
            return
        stack = stack_of_task(activation.worker)
        text = (
            f"{activation.address}: '{turn.mail.handler}' (message '{turn.mail.id}') has waited for more than "
            f"{self.limits.idle_warning:g} s at {stack.file}:{stack.line}, for something that perdure does not know: "
            "after a crash it waits anew, and nothing else is handled here meanwhile. Wait with perdure.sleep() or in "
            "a step."
        )
        self.loop.call_soon(warnings.warn_explicit, text, IdleTurnWarning, stack.file, stack.line)

    async def look(self) -> None:
        """Notice what other processes committed for this node's actors."""
        here = list(self.activations.values())
        # asked together, they are one read
        await asyncio.gather(
            self._look_for_mail(here),
            self._look_for_replies(here),
            self.outcomes.look(),
            self.queries.look(),
            self.slots.look(),
        )

    async def look_at(self, heard: Heard) -> None:
        """Notice what other processes are said to have committed; nothing else is read."""
        here = [self.activations[actor] for actor in heard.actors if actor in self.activations]
        await asyncio.gather(self._look_for_mail(here), self._look_for_replies(here), self.outcomes.look(heard.ended))

    async def _look_for_mail(self, activations: Collection[Activation]) -> None:
        known = [(activation.actor, activation.tail) for activation in activations]
        for grown in await self.store.grown(known, _GROWN_MAIL) if known else ():
            if grown.actor in self.activations:
                self.activations[grown.actor].catch_up(grown)

    async def _look_for_replies(self, activations: Collection[Activation]) -> None:
        await self._find_replies([activation.turn for activation in activations if activation.turn is not None])

    async def _find_replies(self, turns: Iterable[Turn]) -> None:
        """Tell turns what was completed for them; these alone, for a later attempt may ask anew under the same keys."""
        waiting = {turn.mail.seq: turn for turn in turns if turn.open_replies()}
        for completion in await self.store.completed(*waiting) if waiting else ():
            waiting[completion.message].reply(completion.key, completion.outcome)

    def seek(self, turn: Turn) -> None:
        """See `Port.seek`."""
        if not self._seeking:
            self.spawn_task(self._seek(), "perdure seeks replies")
        self._seeking.add(turn)

    async def _seek(self) -> None:
        turns, self._seeking = self._seeking, set()
        try:
            await self._find_replies(turns)
        except PerdureError as error:
            _LOG.error("replies could not be looked for, and will be: %s", error)

    def renewed(self) -> None:
        """Things may begin again."""
        for activation in list(self.activations.values()):
            activation.wake()

    def buried(self, error: NodeBuried) -> None:
        """This node was taken for dead: what it had is others'."""
        self.slots.buried()
        for activation in list(self.activations.values()):
            activation.lose(error)
        self.overseer.buried()

    # leaving ----------------------------------------------------------------------------------------------------------

    def leave(self, seconds: float, *, patiently: bool) -> asyncio.Task[None]:
        """Begin to give every actor up, within so many seconds, or hurry with it; see `Leaving`."""
        if self.leaving is None or self._departure is None:
            self.draining = True
            self.leaving = Leaving(self, patiently=patiently)
            self._departure = self.loop.create_task(self.leaving.run(), name="perdure-leaving")
        self.leaving.by(seconds, patiently=patiently)
        return self._departure

    async def close(self, grace: float) -> None:
        """Leave, running steps first having `grace` seconds to complete, and end what runs in the background."""
        self.closing = True
        try:
            await self.leave(grace, patiently=False)
        except PerdureError as error:
            _LOG.error("actors could not be given up one by one: %s", error)
        await self.workers.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.outcomes.refuse()
        self.queries.refuse()


def _evict(turn: Turn) -> None:
    if turn.waits_durably():
        turn.stop(Evicted("it waits long"))
