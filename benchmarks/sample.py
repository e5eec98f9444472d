"""What one measure in one process gives."""

from __future__ import annotations

import time

from attrs import field, frozen


@frozen
class Sample:
    """Operations done, and what they took.

    Attributes:
        operations: Messages handled, asks answered or steps finished.
        seconds: Wall time until the last of them was durable.
        cpu_seconds: Processor time of all threads of the process.
        transactions: Commits in that time.
        accepted_seconds: For tells, wall time until the last one was accepted.
    """

    operations: int
    seconds: float
    cpu_seconds: float
    transactions: int
    accepted_seconds: float | None = None

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds

    @property
    def accepted_rate(self) -> float | None:
        """Tells accepted a second."""
        return None if self.accepted_seconds is None else self.operations / self.accepted_seconds

    @property
    def cpu_microseconds(self) -> float:
        """Processor time of one operation."""
        return self.cpu_seconds / self.operations * 1e6

    @property
    def batch(self) -> float:
        """Operations a transaction."""
        return self.operations / self.transactions


@frozen
class Stopwatch:
    """Wall and processor time since it was made."""

    wall: float = field(factory=time.perf_counter)
    cpu: float = field(factory=time.process_time)

    @property
    def seconds(self) -> float:
        """Wall time."""
        return time.perf_counter() - self.wall

    def sample(self, operations: int, transactions: int, *, accepted_seconds: float | None = None) -> Sample:
        """What was done until now."""
        return Sample(operations, self.seconds, time.process_time() - self.cpu, transactions, accepted_seconds)
