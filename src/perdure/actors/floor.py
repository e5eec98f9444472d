"""The actors of one node as their supervisors handle them: held, started, let go, halted."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING

from perdure.actors.failing import failure_of
from perdure.actors.names import kinds
from perdure.actors.ref import Reference
from perdure.actors.sealing import close_error
from perdure.actors.stops import LOOK_SECONDS, STUBBORN_SECONDS, Drained
from perdure.errors import FencedError, PerdureError, StateMisfit, StorageError
from perdure.storage.writes import Claim, Claimed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perdure.actors.activation import Activation
    from perdure.actors.actor import Actor
    from perdure.actors.host import Host
    from perdure.storage.records import Address
    from perdure.storage.writes import Committed, Placed, Spawn
    from perdure.supervision.strategy import Failure

_LOG = logging.getLogger("perdure.actors")
_ARRIVE_AGAIN_SECONDS = 0.5


class Floor:
    """See `supervision.floor.Floor`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __repr__(self) -> str:
        return f"<Floor of {self._host!r}>"

    def hold(self, place: Placed) -> None:
        """Have an actor in memory that handles nothing yet; one that is there already goes on."""
        self._host.activation(place, held=True)

    async def start(self, actor: int) -> bool:
        """Run its `started()`; false if it is not here any more."""
        activation = self._host.activations.get(actor)
        started = activation is not None and await self._start(activation)
        if not started:
            self._refuse_lost(actor)
        return started

    def _refuse_lost(self, actor: int) -> None:
        if self._host.is_lost(actor):
            raise StorageError(f"actor row {actor}: it could not be read or written, and is loaded anew.")

    async def _start(self, activation: Activation) -> bool:
        try:
            await activation.ready()
            await activation.start()
        except FencedError:
            return False
        except StateMisfit as error:
            # The code does not fit what is stored; a restart would not mend it. Its first message parks it.
            _LOG.error("%s", error)
        return not activation.gone

    def instance(self, actor: int) -> Actor | None:
        """The live actor, if it is here and has started."""
        activation = self._host.activations.get(actor)
        return None if activation is None else activation.living.instance

    def supervises(self) -> bool:
        """Whether any actor here supervises others."""
        return any(activation.spec.supervision is not None for activation in self._host.activations.values())

    def spawned(self, spawns: Iterable[Spawn]) -> None:
        """Start supervisors that were spawned, and so their children, without waiting for their mail."""
        for spawn in spawns:
            cls = kinds.get(spawn.to.kind)
            if cls is not None and cls.__perdure__.raises_children:
                begins = self._raise_elsewhere(spawn.to, cls) if self._host.client else self._arrive(spawn.to)
                self._host.spawn_task(begins, f"perdure {spawn.to} begins")

    async def _raise_elsewhere(self, address: Address, cls: type[Actor]) -> None:
        """Have a node that runs it take it up: a question to it is enough. A node that comes later looks anyway."""
        count = cls.__perdure__.queries["count_children"]
        with suppress(PerdureError):
            await self._host.queries.ask(Reference(cls, address, self._host), count, (), {})

    async def _arrive(self, address: Address) -> None:
        while not self._host.draining:
            try:
                claimed = await self._host.committer.write(Claim(only=address))
            except PerdureError as error:  # nothing else is sent to it, perhaps
                _LOG.error("%s does not begin yet: %s", address, error)
                await asyncio.sleep(_ARRIVE_AGAIN_SECONDS)
                continue
            if isinstance(claimed, Claimed):
                self._host.wake(claimed.actors)
            break

    def go(self, actor: int) -> None:
        """Let it handle its mail."""
        activation = self._host.activations.get(actor)
        if activation is not None and not activation.gone:
            activation.still = False
            activation.wake()

    async def halt(self, actor: int, seconds: float | None) -> None:
        """Stop it: running steps have so long to complete, `stopping()` to return; no time means at once."""
        activation = self._host.activations.get(actor)
        if activation is not None:
            await self._halt(activation, seconds)
        self._refuse_lost(actor)

    async def _halt(self, activation: Activation, seconds: float | None) -> None:
        activation.still = activation.halted = True
        loop = self._host.loop
        end = loop.time() + (math.inf if seconds is None else seconds)
        if activation.starter is not None:
            activation.starter.cancel()
        while (busy := activation.starter or activation.worker) is not None and not activation.gone:
            if loop.time() >= end + STUBBORN_SECONDS:
                _LOG.error("%s did not stop when it was cancelled; it is left behind", activation.address)
                await activation.abandon()
                return
            turn = activation.turn
            if turn is not None and (loop.time() >= end or not turn.running_steps):
                turn.stop(Drained("its supervisor stops it"))
            await asyncio.wait([busy], timeout=LOOK_SECONDS)
        if seconds == 0:
            activation.living.drop()  # brutal: not even stopping()
        await activation.retire(seconds=None if seconds is None else max(0.0, end - loop.time()))

    def committed(self, committed: Committed) -> None:
        """Let out what a commit released."""
        self._host.committed(committed)

    def spawning(self, cls: type[Actor], key: str, state: Mapping[str, object], parent: int | None) -> Spawn:
        """An actor's beginning."""
        return self._host.spawning(cls, key, state, parent)

    def failure(self, actor: Address, error: BaseException) -> tuple[Failure, str]:
        """A failure that no message is to blame for, and its exception as JSON."""
        attempt = self._host.failed_starts[actor] = self._host.failed_starts.get(actor, 0) + 1
        reference = Reference(kinds[actor.kind], actor, self._host)
        return failure_of(reference, None, attempt, error), close_error(self._host.seal, error, None, actor)
