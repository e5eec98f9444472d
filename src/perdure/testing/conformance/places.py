"""The seam between the suite and a store: where its data lies, how to open it, and how its process dies."""

from __future__ import annotations

from typing import ClassVar, Protocol

from perdure.storage.store import Store


class Place(Protocol):
    """Somewhere data lies, empty when a test gets it, and how to open it.

    Attributes:
        name: What people call the store that is tested.
        shared: Whether the data outlives a store that was closed, and several may have it open at once.
    """

    name: ClassVar[str]
    shared: ClassVar[bool]

    def store(self) -> Store:
        """A store over the data, not open yet. Each call gives another, over the same data if it is `shared`."""
        ...

    async def kill(self, store: Store) -> None:
        """End an open store as the death of its process does: nothing is said or given back.

        Its connections are cut, what it had not committed is lost, and what proves that its node lives (a lock, a
        lease) is gone when this returns: another store finds the node dead at once. A store that finds deaths by a
        lease gets a short one from `store()` and waits for its end here. Called only if the place is `shared`.
        """
        ...
