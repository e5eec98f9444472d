"""Queries: answered from the live actor, beside its running turn, here or in the process that has it.

    here in memory? ──► answered
    otherwise `Inquire` ──► nobody has it, and this node runs it ──► loaded, replayed, answered
                       ├──► parked ──► answered from its snapshot
                       └──► travels ──► its owner, or whoever takes it, answers ──► read, removed

A query is no message: it has no place in a mailbox, is not retried by perdure once it was answered, and leaves nothing
behind. What travels is a row for as long as somebody waits; hints say when to look, and what a hint or a process that
died has lost is asked again, under the same id. (Temporal's queries wait for whoever had the execution last, though it
be gone, temporal#2811, and then say "deadline exceeded" whatever the reason, temporal#1546: so here whoever has the
actor now answers, and a timeout says who that is.)

One that travels costs two small commits, the question and the answer; a third removes what some asked, together.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from perdure.actors.actor import read_only
from perdure.actors.living import Living
from perdure.actors.names import kinds
from perdure.actors.port import decoding_port
from perdure.actors.ref import address_of, class_of
from perdure.actors.sealing import close_answer, close_no_answer, close_query, open_answer, open_query
from perdure.actors.silence import why_silent
from perdure.errors import (
    FencedError,
    MessageTooLarge,
    NotAMessageError,
    NotSpawnedError,
    PerdureError,
    QueryTimeout,
    SystemClosedError,
)
from perdure.storage.committer import settle
from perdure.storage.failure import encode_failure, query_failure
from perdure.storage.query_writes import Answer, Heard, Inquire
from perdure.storage.writes import Claim, Claimed, Placed

if TYPE_CHECKING:
    from perdure.actors.activation import Activation
    from perdure.actors.actor import Actor
    from perdure.actors.handler import Query
    from perdure.actors.host import Host
    from perdure.actors.ref import Reference
    from perdure.storage.records import Answered, OpenQuery

_LOG = logging.getLogger("perdure.actors")
_ASKED_AT_ONCE = 1_000
_ANSWERED_AT_ONCE = 256
_POLL_FIRST_SECONDS, _POLL_LAST_SECONDS = 0.02, 0.5
_AGAIN_SECONDS = 2.0
_OVER_SECONDS = 0.1
_LOOK_FIRST_SECONDS, _LOOK_LAST_SECONDS = 0.001, 0.05
_REPLAY_SECONDS = 1.0
"""How long a handler may go on by itself, or wait for what never comes, before it counts as replayed."""


class Queries:
    """The queries of one system: its own, and those that it answers."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: dict[str, asyncio.Future[Answered]] = {}
        self._over: list[str] = []
        self._places = asyncio.Semaphore(_ASKED_AT_ONCE)
        self._answering: set[str] = set()
        self._more = False

    def __repr__(self) -> str:
        return f"<Queries, {len(self._waiting)} asked, {len(self._answering)} being answered>"

    # asking -----------------------------------------------------------------------------------------------------------

    async def ask(self, ref: Reference, query: Query, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """See `Port.query`. The answer is a copy: what it holds is not the actor's own."""
        host, signature = self._host, query.signature
        if host.closing:
            raise SystemClosedError("the system is closed. Use it inside `async with ActorSystem(...)`.")
        token = decoding_port.set(host)
        try:
            arguments = signature.encode(args, kwargs)
            activation = host.find(address_of(ref))
            if activation is not None:
                with suppress(FencedError):  # it has just left
                    return signature.reply.decode(await self._live(activation, query, arguments))
            async with self._places:
                return signature.reply.decode(await self._seek(ref, query, arguments))
        finally:
            decoding_port.reset(token)

    async def _seek(self, ref: Reference, query: Query, arguments: str) -> str | bytes:
        """Have an actor answer that is not in memory, wherever that may be."""
        host, address = self._host, address_of(ref)
        if len(arguments) > host.limits.message_bytes:
            raise _too_large(f"the arguments of {query.signature.what} are", len(arguments), host.limits.message_bytes)
        id_ = host.ids.next()
        args = arguments if host.seal is None else close_query(host.seal, arguments, id_, address, query)
        inquire = Inquire(id_, address, query.name, args, host.timestamp() + host.limits.query)
        end = host.loop.time() + host.limits.query
        future = self._waiting[id_] = host.loop.create_future()
        travels = False
        try:
            while True:
                self._say_over()  # in one transaction with what follows
                settled = await host.committer.write(inquire)
                if settled is True:
                    travels = True
                    answered = await self._answered(future, min(_AGAIN_SECONDS, end - host.loop.time()))
                    if answered is not None:
                        return open_answer(host.seal, answered, query)
                else:
                    with suppress(FencedError):  # it has left at once
                        return await self._here(settled, ref, query, arguments)
                    await asyncio.sleep(_POLL_FIRST_SECONDS)
                if host.loop.time() >= end:
                    why = await why_silent(host.store, address, queried=True)
                    raise QueryTimeout(f"{query.signature.what} of {address}: no answer in time. {why}")
        finally:
            del self._waiting[id_]
            if travels:
                self._forget(id_)

    async def _answered(self, future: asyncio.Future[Answered], seconds: float) -> Answered | None:
        """Wait for an answer: told of by a hint, or found by looking."""
        loop = self._host.loop
        end, pause = loop.time() + seconds, _POLL_FIRST_SECONDS
        while (left := end - loop.time()) > 0:
            try:
                async with asyncio.timeout(min(pause, left)):
                    return await asyncio.shield(future)
            except TimeoutError:
                pause = min(pause * 2, _POLL_LAST_SECONDS)
                await self._hear()
        return None

    async def _here(self, settled: object, ref: Reference, query: Query, arguments: str) -> bytes:
        if isinstance(settled, Placed):
            if settled.epoch is not None:
                return await self._live(self._host.activation(settled), query, arguments)
            return await _run(query, await self._parked(settled, class_of(ref)), arguments)
        cls = class_of(ref)
        if cls.__perdure__.required:
            raise NotSpawnedError(
                f"{address_of(ref)} does not exist, and its class has fields without defaults. Spawn it first."
            )
        return await _run(query, cls(), arguments)

    async def _parked(self, place: Placed, cls: type[Actor]) -> Actor:
        """What lies on disk of an actor that is parked, in an object that was never started."""
        host = self._host
        living = Living(cls.__perdure__, place.to, None, host)
        for loaded in await host.store.load([place.actor], 0):
            if loaded.snapshot is not None:
                living.take(loaded.snapshot)
        return living.restored()

    def _forget(self, id_: str) -> None:
        if not self._over:
            self._host.loop.call_later(_OVER_SECONDS, self._say_over)
        self._over.append(id_)

    def _say_over(self) -> None:
        over, self._over = self._over, []
        if over:
            with suppress(SystemClosedError):  # leaving removes them, too
                self._host.committer.submit(Heard(tuple(over)), settle)

    def refuse(self) -> None:
        """The system closes: nobody here will be answered any more."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SystemClosedError("the system closed while a query was to be answered."))
                future.exception()  # whoever was cancelled meanwhile will not ask for it

    # looking ----------------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Take what others have answered, and answer what others ask."""
        await self._hear()
        host = self._host
        if host.client or host.closing:
            return
        mine = [kind for kind in kinds if host.runs(kind)]
        asked = await host.store.open_queries(mine, _ANSWERED_AT_ONCE)
        self._more = len(asked) == _ANSWERED_AT_ONCE
        for one in asked:
            if one.id not in self._answering:
                self._answering.add(one.id)
                host.spawn_task(self._answer(one), f"perdure query of {one.to}")

    async def _hear(self) -> None:
        if not self._waiting:
            return
        for answered in await self._host.store.answered():
            future = self._waiting.get(answered.id)
            if future is not None and not future.done():
                future.set_result(answered)

    # answering --------------------------------------------------------------------------------------------------------

    async def _answer(self, one: OpenQuery) -> None:
        """Answer a query of another node, unless its actor goes elsewhere: then whoever has it does."""
        try:
            async with asyncio.timeout(self._host.limits.query):
                await self._answer_here(one)
        except (TimeoutError, PerdureError) as error:
            _LOG.info("query '%s' of %s was not answered: %r", one.name, one.to, error)
        finally:
            self._answering.discard(one.id)
        if self._more:
            await self.look()

    async def _answer_here(self, one: OpenQuery) -> None:
        host = self._host
        activation = host.find(one.to)
        if activation is None:
            claimed = await host.committer.write(Claim(only=one.to))
            place = next(iter(claimed.actors), None) if isinstance(claimed, Claimed) else None
            if place is None or place.epoch is None or host.closing:
                return  # another one has it by now
            activation = host.activation(place)
        result = error = None
        try:
            result = await self._sealed(one, activation)
        except FencedError:
            return
        except PerdureError as problem:
            error = close_no_answer(host.seal, encode_failure(problem.__cause__ or problem), one.id)
        await host.committer.write(Answer(one.id, one.asker, activation.actor, activation.epoch, result, error))

    async def _sealed(self, one: OpenQuery, activation: Activation) -> str:
        host, spec = self._host, activation.spec
        query = spec.queries.get(one.name)
        if query is None:
            raise NotAMessageError(f"'{one.name}' is no query of {spec.cls.__name__} where {one.to} is.")
        decoding_port.set(host)
        answer = await self._live(activation, query, open_query(host.seal, one, query))
        if len(answer) > host.limits.message_bytes:
            raise _too_large(f"the answer of {query.signature.what} is", len(answer), host.limits.message_bytes)
        return close_answer(host.seal, answer.decode(), one.id, query)

    async def _live(self, activation: Activation, query: Query, arguments: str) -> bytes:
        """What a live actor answers, encoded. Raises `FencedError` if it leaves this node first."""
        await _settled(activation)
        activation.idle_since = self._host.timestamp()
        await activation.start()
        return await _run(query, cast("Actor", activation.living.instance), arguments)


async def _settled(activation: Activation) -> None:
    """Wait until a turn that began before is where it waits, and until one that is being stopped has gone.

    Raises:
        FencedError: The actor has left this node.
    """
    pause, patience = _LOOK_FIRST_SECONDS, _REPLAY_SECONDS
    await activation.ready()
    while patience > 0:
        turn = activation.turn
        if not (activation.is_to_replay if turn is None else turn.replays or turn.stopped):
            return
        going_on = False
        if turn is not None and not turn.stopped:
            caught_up, waits = turn.handout.quiet, turn.idle()
            turn.replays = not (turn.ended or (caught_up and waits))
            going_on = not (caught_up or waits)
        patience -= 0.0 if going_on else pause
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LOOK_LAST_SECONDS)
        await activation.ready()
    if activation.turn is not None:
        activation.turn.replays = False


async def _run(query: Query, instance: Actor, arguments: str) -> bytes:
    signature = query.signature
    guard = read_only.set(f"query {signature.what}")
    try:
        answer: Any = await query.function(instance, **signature.arguments.decode(arguments))
    except Exception as error:
        failure = query_failure(error, signature.what)
        if failure is error:
            raise
        raise failure from error
    finally:
        read_only.reset(guard)
    return signature.reply.encode(answer, signature.reply_path)


def _too_large(what: str, size: int, limit: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"{what} {size} bytes, and {limit} may travel between processes. Ask for less, or raise "
        "Limits(message_bytes=…)."
    )
