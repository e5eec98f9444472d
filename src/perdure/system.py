"""`ActorSystem`: the composition root. Builds the parts, starts them, stops them.

Every background task is the system's own, so it may be entered in one task and left in another.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, cast, overload

import anyio
from attrs import evolve

from perdure.actors.actor import Actor, SpawnCall
from perdure.actors.handler import Handler
from perdure.actors.host import Host
from perdure.actors.names import IdSource, check_name, check_tags, kinds
from perdure.actors.port import Port
from perdure.actors.receipt import Receipt
from perdure.actors.ref import Reference
from perdure.actors.scope import here
from perdure.actors.watchdog import Watchdog
from perdure.client import attend, check_client, node_record
from perdure.clock import Clock, Seconds, SystemClock, seconds
from perdure.errors import (
    ActorDefinitionError,
    ActorError,
    ClientError,
    EscalationError,
    NodeBuried,
    SystemClosedError,
)
from perdure.limits import Limits
from perdure.serving import serve
from perdure.storage.committer import Committer
from perdure.storage.records import Address
from perdure.storage.seal import Demanded, Seal
from perdure.storage.store import Store
from perdure.storage.targets import store_of
from perdure.supervision.alarm import Alarm
from perdure.supervision.balancer import Balancer
from perdure.supervision.judge import Judge
from perdure.supervision.nodes import Sweep
from perdure.supervision.overseer import Overseer
from perdure.supervision.pulse import Pulse
from perdure.supervision.strategy import BlameRule, OneForOne, Retry
from perdure.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    from os import PathLike

    from perdure.actors.child import Child
    from perdure.storage.records import NodeRecord

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A", bound=Actor)

_LOG = logging.getLogger("perdure")
_SWEEP_SECONDS = 0.25
_PURGE_SECONDS = 60.0


class ActorSystem:
    """A place where actors live.

    Args:
        target: A path, ``:memory:``, ``sqlite:///path``, ``postgresql://…``, or a `Store`.
        root: The supervisor at the top of the application's own tree, started with the system, under the key `root`.
        limits: What the system allows.
        seal: `Signed` or `Encrypted`, put around what is stored; without it, it lies there as it is.
        on_escalation: What is done when the root cannot keep its children running: `stop`, the system closes, and says
            so in the log; `raise`, besides, whoever is inside ``async with`` is cancelled, and it raises
            `EscalationError`.
        tags: What this process has that actors may need: it runs those whose class is imported here and whose
            ``needs=`` are among them. Mail for others waits for a process that may have it.
        clock: Where it takes its time from, for tests; else the machine, or the PostgreSQL server it is on.

    Nothing is read or written before ``async with``. Raises there:
        TargetError: The target cannot be used.
        StartError: The root, or an actor below it, did not start.
    """

    def __init__(
        self,
        target: str | PathLike[str] | Store,
        *,
        root: type[Supervisor] | None = None,
        limits: Limits | None = None,
        seal: Seal | None = None,
        on_escalation: Literal["stop", "raise"] = "stop",
        tags: Iterable[str] = (),
        clock: Clock | None = None,
    ) -> None:
        self._tags = check_tags(tags, "ActorSystem: tags=")
        self._store = store_of(target)
        self._limits = limits or Limits()
        self._clock = clock or SystemClock()
        self._seal = seal or (Demanded(self._store.location) if self._store.requires_signed else None)
        self._root = root
        self._on_escalation = on_escalation
        self._escalation = ""
        self._inside: asyncio.Task[Any] | None = None
        self._overseer: Overseer | None = None
        self._host: Host | None = None
        self._committer: Committer | None = None
        self._sweep: Sweep | None = None
        self._watchdog: Watchdog | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._is_client = False
        self._pid = os.getpid()
        self._closing: asyncio.Task[None] | None = None
        self._ending: asyncio.Event = asyncio.Event()

    def __repr__(self) -> str:
        what = "client of " if self._is_client else ""
        return f"<ActorSystem {what}{self._store.location} {'open' if self._host else 'closed'}>"

    @classmethod
    def client(
        cls,
        target: str | PathLike[str] | Store,
        *,
        limits: Limits | None = None,
        seal: Seal | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """A system that sends and asks, and runs no actor: for web front ends, scripts, and whoever must stay light.

        It has `get`, `spawn`, `receipt`, tells, asks and queries. What it sends is durable as ever, and is handled by
        whichever process runs the receiver's kind, now or when one starts; replies come in milliseconds where it is
        there. It is never given an actor, fires no timer, buries nobody and keeps no tree. It needs the classes that it
        names, and no others. A supervisor's operations are messages, and so work from here.

        Args:
            target: As of `ActorSystem`; not ``:memory:``, which no other process could open.
            limits: `message_bytes`, `query`, `lease` and `heartbeat` count here; the others belong to whoever runs the
                actors.
            seal: The one that the other processes have.
            clock: Where it takes its time from.

        Raises:
            ClientError: The limits are about actors, or nobody else could open the target.
        """
        limits = check_client(target, limits or Limits())
        client = cls(store_of(target, client=True), limits=limits, seal=seal, clock=clock)
        client._is_client = True
        return client

    def adjust(self, *, target: str | PathLike[str] | None = None, drain: Seconds | None = None) -> None:
        """Have another database, or time to drain in, than it was made with; for whoever runs it, before it is open.

        Raises:
            SystemClosedError: It is open.
        """
        if self._host is not None:
            raise SystemClosedError(f"{self!r} is open, and cannot be adjusted any more.")
        if target is not None:
            self._store = store_of(target, client=self._is_client)
        if drain is not None:
            self._limits = evolve(self._limits, drain=drain)

    # opening and closing ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._host is not None:
            raise SystemClosedError(f"{self!r} is open already. Make another ActorSystem for another use.")
        self._pid = os.getpid()
        committer = Committer(self._store, self._store.checkpoint, self._rejoin)
        retry, rule = Retry(self._limits.attempts), BlameRule(self._limits.deaths)
        host = Host(self, self._store, committer, self._limits, retry, rule)
        own = not isinstance(self._clock, SystemClock)
        host.timestamp = (lambda: self._clock.now().timestamp()) if own else self._store.timestamp
        host.started, then = host.timestamp(), host.loop.time()
        host.node = host.ids.prefix
        host.seal = self._seal
        host.client, host.tags = self._is_client, self._tags
        await self._store.open(self._record(host), host.runs)
        if not own:
            host.started = host.timestamp() - (host.loop.time() - then)  # by now it knows the time
        committer.start()
        self._closing = None
        self._ending = asyncio.Event()
        self._escalation = ""
        self._inside = asyncio.current_task()
        self._host, self._committer = host, committer
        root = OneForOne(max_restarts=self._limits.restarts, within=self._limits.restart_period)
        host.judge = Judge(self._store, kinds.get, root, host.timestamp)
        self._overseer = Overseer(self._store, committer, host.floor, host.judge, host.runnable, host.timestamp)
        self._overseer.escalated = self._escalated
        host.overseer = self._overseer
        if self._is_client:
            pulse = self._pulse(host, committer, None)
            self._run({"attend": attend(self._store, host), "pulse": pulse.run(self._limits.heartbeat)})
        else:
            await self._run_actors(host, committer, self._overseer)
        return self

    async def _run_actors(self, host: Host, committer: Committer, overseer: Overseer) -> None:
        """Begin to run actors: those that nobody has, and the trees."""
        anyio.current_time()  # imports its half for asyncio now: 50 ms, for which a first step would hold all actors up
        limits = self._limits
        balancer = Balancer(self._store, committer, host.giving, host.wake, limits.imbalance)
        self._sweep = Sweep(
            self._store,
            committer,
            host,
            kinds=lambda: list(filter(host.can_run, kinds)),
            alarm=Alarm(self._store, host.needs, self._tags),
            timestamp=host.timestamp,
            deaths=self._limits.deaths,
            orders=overseer,
            balancer=balancer,
        )
        pulse = self._pulse(host, committer, self._sweep)
        self._watchdog = Watchdog(host, limits)
        self._watchdog.start()
        background = {
            "loader": host.load_loop(),
            "pulse": pulse.run(limits.heartbeat),
            "sweep": self._sweep.run(_SWEEP_SECONDS),
            "balance": balancer.run(),
            "timers": self._sweep.fire(),
            "retention": self._sweep.purge(
                retention=limits.retention, results=limits.results, history=limits.history, every_seconds=_PURGE_SECONDS
            ),
        }
        self._run(background)
        try:
            await self._sweep.bury()
            if self._root is not None:
                await overseer.boot(host.spawning(self._root, "root", {}, None))
            await self._sweep.begin()
        except BaseException:
            await self._close()
            raise

    def _run(self, background: Mapping[str, Coroutine[Any, Any, object]]) -> None:
        """Have work done in the background, as long as the system is open."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work, name=f"perdure-{name}") for name, work in background.items()]
        for task in self._tasks:
            task.add_done_callback(_report)

    def _record(self, host: Host) -> NodeRecord:
        running = filter(host.can_run, kinds)
        return node_record(host.node, host.started, runs=not self._is_client, tags=host.tags, kinds=running)

    def _pulse(self, host: Host, committer: Committer, sweep: Sweep | None) -> Pulse:
        pulse = Pulse(self._store, committer, self._limits.lease, beat=host.beat, renewed=host.renewed)
        if sweep is not None:  # a client leaves it to others to bury the dead, and takes nothing of theirs
            pulse.dead, pulse.looked = sweep.adopt, sweep.balancer.look
        host.stale, host.renewal = pulse.stale, pulse.renewal
        return pulse

    async def _rejoin(self, error: NodeBuried) -> None:
        """This node was taken for dead: go on as another, with nothing."""
        host, sweep = self._host, self._sweep
        if host is None:
            raise error
        _LOG.error("%s", error)
        host.buried(error)
        host.node = IdSource().prefix
        await self._store.rejoin(self._record(host))
        if sweep is not None and not host.draining:
            host.spawn_task(sweep.begin_anew(), "perdure begins anew")

    async def __aexit__(self, *error: object) -> None:
        # Whoever leaves may be cancelled; the leaving is seen through all the same.
        await asyncio.shield(self._begin_closing())
        if self._escalation and self._on_escalation == "raise":
            if self._inside is not None and self._inside is asyncio.current_task():
                self._inside.uncancel()
            raise EscalationError(self._escalation)

    def _escalated(self, reason: str) -> None:
        """The root could not keep its children running: nothing of the tree runs any more."""
        name = self._root.__perdure__.kind if self._root is not None else "the root"
        self._escalation = f"{name}/root could not keep its children running: {reason}. Start the system again."
        _LOG.critical("%s", self._escalation)
        _ = self._begin_closing()
        if self._on_escalation == "raise" and self._inside is not None:
            self._inside.cancel()

    def _begin_closing(self) -> asyncio.Task[None]:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="perdure-close")
            self._ending.set()
        return self._closing

    async def drain(self, timeout: Seconds | None = None) -> None:
        """Give every actor up to other processes, and take none any more.

        Nothing new begins here. Each actor is released when its turn is at a durable point: one that waits for replies
        or time is at one already; a step that runs is completed and recorded; a handler's own code goes on to its next
        call of perdure, or to its end. Others see the release and go on from there. Supervision trees are handed over,
        not stopped for good. The system stays open to send, ask and wait for results; leaving it is quick then.

        Args:
            timeout: Seconds after which what is left is cancelled, to begin again elsewhere where it was recorded last;
                `Limits(drain=…)` without it. Called again, the earlier end counts, so that 0 hurries.

        Raises:
            ActorError: It was called in a handler, which it would wait for.
            ClientError: A client has no actors to give up.
            StorageError: What this node has could not be given up; leaving the system, or its end, gives it up.
        """
        if here() is not None:
            raise ActorError("drain() was called in a handler, which it would wait for. Call it outside of any turn.")
        self._refuse_as_client("drain()")
        seconds_ = self._limits.drain if timeout is None else seconds(timeout)
        # Whoever waits may be cancelled; the drain is seen through all the same.
        await asyncio.shield(self._open().leave(seconds_, patiently=True))

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT (Ctrl-C) comes, then drain: for `Limits(drain=…)` seconds at the most.

        A second signal hurries: turns are cancelled where they are, and released. A third, or a process that hangs past
        its time, ends at once with 128 and the signal's number as its exit code. Handlers that were there before are
        put back afterwards. In another thread than the main one no signal comes: it runs until it is cancelled, which
        leaves the draining to `async with`. Ends, too, when somebody else has drained or closed the system.

        Raises:
            EscalationError: The root could not keep its children running.
            ClientError: A client runs nothing that would have to be kept running.
            StorageError: As of `drain`.
        """
        self._refuse_as_client("serve()")
        await serve(self._open(), self._store.location, self._ending)
        if self._escalation:
            raise EscalationError(self._escalation)

    def _refuse_as_client(self, what: str) -> None:
        if self._is_client:
            raise ClientError(f"{what} of a client: it runs no actors. Leave `async with`, or call it where they run.")

    async def _close(self) -> None:
        host, committer = self._host, self._committer
        if host is None or committer is None:
            return
        if os.getpid() == self._pid:
            await host.close(self._limits.grace)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await committer.close()
        if self._watchdog is not None:
            self._watchdog.stop()
        await self._store.close()
        self._host = self._committer = self._sweep = None

    def _open(self) -> Host:
        if os.getpid() != self._pid:
            raise SystemClosedError(
                f"{self!r} was opened in process {self._pid} and is used in its fork {os.getpid()}. "
                "Open one in each process."
            )
        if self._host is None or self._closing is not None:
            why = self._escalation or "Use it inside `async with ActorSystem(…)`."
            raise SystemClosedError(f"{self._store.location}: the system is not open. {why}")
        return self._host

    @property
    def _port(self) -> Port:
        return self._host or cast("Port", _Closed(self))

    def due_changed(self) -> None:
        """Something may fall due earlier than was thought."""
        if self._sweep is not None:
            self._sweep.due_changed()

    # actors -----------------------------------------------------------------------------------------------------------

    def get(self, cls: type[A], key: str) -> A:
        """A reference to an actor. Does no I/O; the actor begins with its first message, or was spawned.

        Raises:
            KeyFormatError: The key is not 1 to 255 bytes of NFC text without control characters.
        """
        spec = cls.__perdure__
        return cast("A", Reference(cls, Address(spec.kind, check_name(key, "key")), self._port))

    @property
    def spawn(self) -> SpawnCall:
        """Begin an actor with its first state: ``await system.spawn(Cls, key, **state)`` gives its reference.

        Spawning again with equal initial state is quiet; with other state it raises `ActorExists`. A ``Child(Cls, key,
        **state)`` is the same; it may have no options, for no supervisor keeps what is spawned here.

        Raises:
            ActorDefinitionError: A `Child` has options.
        """

        async def spawn(cls: Callable[..., Any] | Child[Any], key: str | None = None, /, **state: object) -> object:
            if not callable(cls):
                return await spawn(_without_options(cls).cls, cls.key, **cls.state)
            actor = cast("type[Actor]", cls)
            scope = here()
            if scope is not None:
                return await scope.turn.spawn(scope, actor, key, state)
            return await self._open().spawn(actor, key, state)

        return cast("SpawnCall", spawn)

    @overload
    def receipt(self, id: str) -> Receipt[object]: ...
    @overload
    def receipt(self, id: str, handler: Handler[P, R]) -> Receipt[R]: ...
    def receipt(self, id: str, handler: Handler[P, R] | None = None) -> Receipt[Any]:
        """The receipt of a message sent earlier, by any process. Does no I/O.

        Args:
            id: The message's id.
            handler: What it was sent to, for the type of its result.
        """
        codec = None if handler is None else handler.signature.reply
        return Receipt(check_name(id, "message id"), codec, self._port)


class _Closed:
    """Stands for a system that is not open, in references made before it was."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the open system has
        return getattr(self._system._open(), name)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # two halves of one thing


def _without_options(child: Child[Any]) -> Child[Any]:
    if not child.plain:
        raise ActorDefinitionError(
            f"{child!r} has options, and system.spawn() has no supervisor to keep them. Leave the options out, declare "
            "it in a Supervisor's children(), or give it to start_child() of a running one."
        )
    return child


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _LOG.critical(
            "%s ended, which cannot happen; the system does not recover by itself",
            task.get_name(),
            exc_info=task.exception(),
        )
