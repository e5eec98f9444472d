"""Every limit, by name, with its default. All are on."""

from __future__ import annotations

import math

from attrs import field, fields, frozen

from perdure.clock import seconds

_FINEST = 0.01


@frozen(kw_only=True)
class Limits:
    """What a system allows.

    Attributes:
        message_bytes: Size of a message's encoded arguments; and of a query's, and its answer, between processes.
        steps: Steps, asks, waits and sleeps in one turn; a turn with more is parked.
        attempts: Runs of a handler before its message is a dead letter, where neither handler nor class says.
        query: Seconds that a query to an actor in another process waits for its answer, and that this one answers for.
        restarts: Restarts of an actor under the system's root within `restart_period`; one more, and it has failed.
        restart_period: Seconds.
        deaths: Deaths of the process that a message may be blamed for before it is a dead letter.
        evict_after: Seconds that a turn waits before it leaves memory.
        drain: Seconds that turns have to come to a durable point when the system drains; then they are cancelled. Less
            than the 30 after which Kubernetes kills a process, if it is told nothing else.
        grace: Seconds that running steps have to complete when the system closes; and that a handler has to stop once
            its timeout has cancelled it, before it is left behind.
        blocked_warning: Seconds that a handler may block the event loop before a `BlockedLoopWarning` names it; noticed
            after twice that at the latest. `math.inf` for never.
        blocked_failure: Seconds after which blocking the loop is a failure of the actor. `math.inf` for never.
        idle_warning: Seconds that a handler may wait outside of perdure, as `asyncio.sleep` does, before an
            `IdleTurnWarning` names it. `math.inf` for never.
        lease: Seconds after which a node that gives no sign of life is taken for dead; half of them after its last
            sign, it begins nothing itself. How long work rests if a machine is lost; on SQLite, the kernel tells at
            once of a process that died.
        heartbeat: Seconds between signs of life. At most a fifth of `lease`. Both are to be the same in all processes.
        imbalance: The part of its actors by which a process may have more in memory than another. Past it, it gives
            that one some: idle ones first, then others between two turns. From 0.01 to 1; 1 for never.
        retention: Seconds that handled messages and their journals stay readable.
        history: How many handled messages stay readable.
        results: Seconds that ids chosen by senders, and their results, are remembered. Whatever these three say, what
            ended within the last two minutes stays, and what was sent by a turn that goes on, or by a dead letter.
    """

    message_bytes: int = 1 << 20
    query: float = field(default=30.0, converter=seconds)
    steps: int = 10_000
    attempts: int = 5
    restarts: int = 3
    restart_period: float = field(default=60.0, converter=seconds)
    deaths: int = 5
    evict_after: float = field(default=60.0, converter=seconds)
    drain: float = field(default=25.0, converter=seconds)
    grace: float = field(default=5.0, converter=seconds)
    blocked_warning: float = field(default=0.5, converter=seconds)
    blocked_failure: float = field(default=10.0, converter=seconds)
    idle_warning: float = field(default=60.0, converter=seconds)
    lease: float = field(default=15.0, converter=seconds)
    heartbeat: float = field(default=3.0, converter=seconds)
    imbalance: float = 0.2
    retention: float = field(default=24 * 3600.0, converter=seconds)
    history: int = 1_000_000
    results: float = field(default=7 * 24 * 3600.0, converter=seconds)

    def __attrs_post_init__(self) -> None:
        for name in ("message_bytes", "steps", "attempts", "deaths", "history"):
            if getattr(self, name) < 1:
                raise ValueError(f"Limits({name}={getattr(self, name)}): must be at least 1")
        if not 0 < self.heartbeat <= self.lease / 5:
            raise ValueError(
                f"Limits(lease={self.lease:g}, heartbeat={self.heartbeat:g}): a heartbeat must be more than 0 seconds "
                "and at most a fifth of the lease, or a busy node is taken for dead"
            )
        if not _FINEST <= self.imbalance <= 1:
            raise ValueError(
                f"Limits(imbalance={self.imbalance}): must be between 0.01 and 1, the part of its actors by which a "
                "process may have more than another; 1 for giving none away"
            )
        for name in ("blocked_warning", "blocked_failure", "idle_warning"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"Limits({name}={getattr(self, name)}): must be more than 0 seconds; math.inf for never"
                )
        for one in fields(type(self)):
            if math.isnan(getattr(self, one.name)):
                raise ValueError(
                    f"Limits({one.name}=nan): is no number, and none is more or less. Use math.inf for never."
                )
