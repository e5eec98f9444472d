"""A system that runs no actor: what it may be, and what it does while it is open.

A client is a node like any other to those that answer it, and has a row, so that it is woken and what it asked is
swept if it dies. But every write of its own finds that it runs no kind, so nothing ever becomes its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import socket
from typing import TYPE_CHECKING

import attrs

from perdure._version import __version__
from perdure.errors import ClientError, PerdureError
from perdure.limits import Limits
from perdure.storage.records import NodeRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.actors.host import Host
    from perdure.storage.store import Store

_LOG = logging.getLogger("perdure")
_LOOK_SECONDS = 1.0
_MEET_SECONDS = 0.05
_OWN_LIMITS = frozenset({"message_bytes", "query", "lease", "heartbeat"})


def check_client(target: object, limits: Limits) -> Limits:
    """The limits, if a client can have them, and this target. Raises `ClientError`."""
    if isinstance(target, str | os.PathLike) and os.fspath(target) == ":memory:":
        raise ClientError("a client of ':memory:' would be alone with it. Name a file, or postgresql://…")
    others = [a.name for a in attrs.fields(Limits) if a.name not in _OWN_LIMITS]
    given = [name for name in others if getattr(limits, name) != getattr(Limits(), name)]
    if given:
        raise ClientError(
            f"Limits({', '.join(f'{name}=…' for name in given)}): a client runs no actors, so only "
            f"{' and '.join(sorted(_OWN_LIMITS))} mean anything to it. Set it where the actors run."
        )
    return limits


def node_record(
    id_: str, started: float, *, runs: bool, tags: Iterable[str] = (), kinds: Iterable[str] = ()
) -> NodeRecord:
    """This process, as the database has it."""
    here, python = socket.gethostname(), platform.python_version()
    return NodeRecord(id_, os.getpid(), here, python, __version__, started, runs, tuple(sorted(tags)), tuple(kinds))


async def attend(store: Store, host: Host) -> None:
    """Take what others answered, for ever: at once when one may have, and now and then all the same."""
    loop = asyncio.get_running_loop()
    met = loop.time()
    while True:
        try:
            heard = await store.wait(_LOOK_SECONDS)
            begin = loop.time()
            if heard and not heard.anything:
                await host.look_at(heard)
            elif await store.changed():
                await asyncio.gather(host.outcomes.look(), host.queries.look())
            if begin > met + _MEET_SECONDS:
                met = begin
                await store.dead_nodes()  # whoever came since is heard from now on
        except PerdureError as error:
            _LOG.error("a client's look at the database failed, and is tried again: %s", error)
            begin = loop.time() - _LOOK_SECONDS
        await asyncio.sleep(loop.time() - begin)  # others may commit without end; half of the time is for the rest
