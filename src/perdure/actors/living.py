"""The live object of an actor, and the state it was made from.

The state is held as it is stored, field by field: what a turn changed is what encodes otherwise, and going back to
before a message needs no database.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from perdure.actors.actor import Actor, bind, read_only
from perdure.actors.port import decoding_port
from perdure.actors.scope import current
from perdure.actors.sealing import SEAL_ERRORS, close_state, open_state
from perdure.errors import ActivationError, StateError, StateMisfit
from perdure.storage.record_codec import join, split
from perdure.storage.records import Snapshot
from perdure.warning_types import LargeStateWarning

if TYPE_CHECKING:
    from collections.abc import Generator

    from perdure.actors.actor import ActorSpec, Cell
    from perdure.actors.port import Port
    from perdure.storage.records import Address

_LOG = logging.getLogger("perdure.actors")
_LARGE_STATE_BYTES = 256 << 10
STOPPING_SECONDS = 5.0


class Living:
    """An actor's instance between activation and passivation."""

    def __init__(self, spec: ActorSpec, address: Address, cell: Cell | None, port: Port) -> None:
        self.spec = spec
        self.name = str(address)
        self._address = address
        self.instance: Actor | None = None
        self.fields: dict[str, bytes] = {}
        self._stored: Snapshot | None = None
        self._crashed: Actor | None = None
        self._cell = cell
        self._port = port
        self._starting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<living {self.name}, {'in' if self.instance else 'not in'} memory>"

    # state ------------------------------------------------------------------------------------------------------------

    def take(self, snapshot: Snapshot) -> None:
        """Take stored state; it is opened when the instance is made."""
        self._stored = snapshot

    def _open(self, snapshot: Snapshot) -> dict[str, bytes]:
        """Stored state by field, brought up to the class's version."""
        state = open_state(self._port.seal, snapshot, self._address, self.spec)
        if snapshot.version == self.spec.version:
            return split(state)
        if snapshot.version > self.spec.version:
            raise StateMisfit(
                f"{self.name}: its state is of version {snapshot.version}, written by newer code; this process has "
                f"version {self.spec.version} of {self.spec.cls.__name__}. It waits for a process with newer code."
            )
        old = {name: msgspec.json.decode(raw) for name, raw in split(state).items()}
        fields = self.spec.cls.migrate(snapshot.version, old)
        return {name: msgspec.json.encode(value) for name, value in fields.items()}

    def encode(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """The state as it is now, and the fields of it that changed. Raises `EncodingError`."""
        if self.instance is None:
            raise ActivationError(f"{self.name}: is not in memory")
        name = self.spec.cls.__name__
        try:
            return self.spec.state.encode_changed(self.instance.__dict__, self.fields, name)
        except KeyError as missing:
            raise StateError(f"{name}.{missing.args[0]} was deleted. Assign a value instead.") from None

    def snapshot(self) -> Snapshot:
        """The held state as it is stored."""
        state = join(self.fields)
        if len(state) > _LARGE_STATE_BYTES:
            largest = max(self.fields, key=lambda field: len(self.fields[field]))
            # Where warnings are errors, this one is not to fail a turn that went well.
            text = (
                f"{self.name} holds {len(state) >> 10} KiB of state, most of it in '{largest}' "
                f"({len(self.fields[largest])} bytes), written at every turn that changes it. "
                "Keep large values outside."
            )
            asyncio.get_running_loop().call_soon(warnings.warn, text, LargeStateWarning)
        seal = self._port.seal
        if seal is not None:
            state = close_state(seal, state, self._address, self.spec)
        return Snapshot(self.spec.version, self.spec.state.name, state)

    def rollback(self) -> None:
        """Take the state back to what is held."""
        if self.instance is None:
            return
        before = self._restored()
        for name in self.spec.fields:
            self.instance.__dict__[name] = before.__dict__[name]

    def _restored(self) -> Actor:
        token = decoding_port.set(self._port)
        try:
            return self.spec.cls(**self.spec.state.decode(join(self.fields)))
        finally:
            decoding_port.reset(token)

    def crash(self) -> None:
        """Have nobody see the instance any more; it is ended later."""
        if self.instance is not None:
            self.instance, self._crashed = None, self.instance

    def drop(self) -> None:
        """Leave the instance to a handler that does not let go of it; not even `stopping()` runs."""
        self.instance = self._crashed = None

    @property
    def has_hook(self) -> bool:
        """Whether there is an instance whose class has something to do in `stopping()`."""
        instance = self.instance or self._crashed
        return instance is not None and type(instance).stopping is not Actor.stopping

    def restored(self) -> Actor:
        """An object made from the stored state, that lives nowhere. Raises `StateMisfit`."""
        try:
            if self._stored is not None:
                self.fields, self._stored = self._open(self._stored), None
            return self._restored()
        except StateMisfit:
            raise
        except SEAL_ERRORS as error:
            raise StateMisfit(f"{self.name}: {error} The state is kept.") from error
        except Exception as error:
            raise StateMisfit(
                f"{self.name}: the stored state does not fit {self.spec.cls.__name__}: {error}. "
                "Mend the class or its migrate(); the state is kept."
            ) from error

    # life -------------------------------------------------------------------------------------------------------------

    async def start(self) -> Actor:
        """The instance, made from the held state if it is not there. Raises `StateMisfit` or `ActivationError`."""
        async with self._starting:
            if self.instance is None:
                self.instance = await self._start()
            return self.instance

    async def _start(self) -> Actor:
        instance = self.restored()
        if self._cell is not None:
            bind(instance, self._cell)
        try:
            with _hook("started()"):
                await instance.started()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ActivationError(f"{self.name}: started() was cancelled by its own code") from error
        except Exception as error:
            raise ActivationError(f"{self.name}: started() raised {type(error).__name__}: {error}") from error
        return instance

    async def end(self, seconds: float | None = STOPPING_SECONDS) -> None:
        """Let the instance close what it opened, in so much time, and drop it."""
        instance, self.instance, self._crashed = self.instance or self._crashed, None, None
        if instance is None:
            return
        try:
            async with asyncio.timeout(seconds):
                with _hook("stopping()"):
                    await instance.stopping()
        except TimeoutError:
            _LOG.error("%s: stopping() did not return within %s s", self.name, seconds)
        except Exception:  # noqa: BLE001  # the actor leaves all the same
            _LOG.exception("%s: stopping() raised", self.name)


@contextmanager
def _hook(name: str) -> Generator[None]:
    """Run a lifecycle hook: outside any turn, with the state read-only."""
    scope, guard = current.set(None), read_only.set(name)
    try:
        yield
    finally:
        read_only.reset(guard)
        current.reset(scope)
