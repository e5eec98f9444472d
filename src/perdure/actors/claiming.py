"""Which record of the journal is whose: each call of a turn claims a key, and is compared with what is there."""

from __future__ import annotations

import sys
from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

from perdure.actors.past import LEFT, RESULTS, decided
from perdure.actors.scope import Scope
from perdure.errors import NondeterminismError, NotInTurnError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.actors.handout import Handout
    from perdure.actors.seat import Seat
    from perdure.storage.records import Mail, Record, RecordKind


class Claiming(Scope):
    """A turn's journal as its code comes by."""

    seat: Seat
    mail: Mail
    amid: Sequence[tuple[str, BaseException]] = ()
    """Keys that were claimed in an `except` or `finally`, with the error there."""
    differs = False
    """Whether it was stopped because code and journal differ."""
    _results = 0

    @cached_property
    def records(self) -> dict[str, Record]:
        """What the turn has done, by key."""
        return {}

    @cached_property
    def anew(self) -> dict[str, Record]:
        """What was begun before, and begins anew."""
        return {}

    @cached_property
    def _claimed(self) -> set[str]:
        return set()

    @property
    @abstractmethod
    def handout(self) -> Handout:
        """The order of results."""

    @abstractmethod
    def check(self) -> None:
        """Raise if nothing may be begun any more."""

    @abstractmethod
    def park(self, why: str) -> None:
        """Stop because code and journal differ."""

    def _take_over(self, records: list[Record]) -> list[Record]:
        """Begin with what attempts before have left; gives what stays of it."""
        kept = decided(records)
        self.records = {record.key: record for record in kept}
        self.anew = {record.key: record for record in records if record.key not in self.records}
        self._results = sum(record.kind in RESULTS for record in kept)
        return kept

    def claim(
        self, scope: Scope, kind: RecordKind, name: str, digest: bytes | None, key: str | None = None
    ) -> tuple[str, Record | None]:
        """The key of the next call of `name` in a scope, and its record if the journal has one."""
        chosen = key
        key = scope.key(name, chosen)
        while self._is_left(key, kind, digest):
            if chosen is not None:
                self.anew[key] = self.records.pop(key)
                break
            key = scope.key(name)
        if key in self._claimed:
            raise NotInTurnError(
                f"key '{key}' is used twice in the turn of '{self.mail.id}'. Give each call its own key=."
            )
        self._claimed.add(key)
        error = sys.exc_info()[1]
        if error is not None:
            self.amid = [*self.amid, (key, error)]
        record = self.records.get(key)
        if record is None:
            self._check_unknown(scope, kind, name, key)
            return key, None
        if record.kind != kind:
            self._differ(f"'{key}' is a {record.kind} in the journal and a {kind} in the code")
        if record.digest is not None and digest is not None and not self._same(record.digest, digest):
            self._differ(
                f"'{key}' was recorded with arguments of digest {record.digest.hex()[:12]}, and is called with others "
                f"({digest.hex()[:12]}). Feed steps from state, messages and steps only, never from the clock or chance"
            )
        return key, record

    def _is_left(self, key: str, kind: RecordKind, digest: bytes | None) -> bool:
        """Whether a key has something else, which only an attempt that failed has asked for."""
        record = self.records.get(key)
        if record is None or record.position != LEFT:
            return False
        other = record.digest is not None and digest is not None and not self._same(record.digest, digest)
        return other or record.kind != kind or kind == "sleep"  # which may be of any length

    def _same(self, stored: bytes, digest: bytes) -> bool:
        seal = self.seat.seal
        return stored == digest or (seal is not None and seal.same_digest(stored, digest))

    def _check_unknown(self, scope: Scope, kind: RecordKind, name: str, key: str) -> None:
        if kind in RESULTS:
            prefix = scope.path
            for other, other_name in self.handout.unclaimed.items() if key not in self.anew else ():
                if other_name == name and other.startswith(prefix) and "/" not in other[len(prefix) :]:
                    self._differ(
                        f"the code asks for '{key}', and the journal holds '{other}', which it did not ask for"
                    )
            self._results += 1
            if self._results > self.seat.max_steps:
                self.park(f"the turn has {self.seat.max_steps} steps, its limit. Split the work into several messages.")
                self.check()

    def _differ(self, what: str) -> None:
        self.differs = True
        error = NondeterminismError(f"{what}. The turn is parked. See it with: perdure journal {self.mail.id}")
        self.park(str(error))
        self.check()
