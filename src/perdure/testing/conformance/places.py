"""The seam between the suite and a store: where its data lies, how to open it, and how its process dies."""

from __future__ import annotations

from typing import ClassVar, Protocol

from perdure.storage.store import Store


class Place(Protocol):
    """Somewhere data lies, empty when a test gets it, and how to open it.

    Attributes:
        name: What people call the store that is tested.
        shared: Whether the data outlives a store that was closed, and several may have it open at once.
        tells: Whether something other than heartbeats tells of a node's death (`Store.dead_nodes`), such as a lock that
            the kernel frees.
    """

    name: ClassVar[str]
    shared: ClassVar[bool]
    tells: ClassVar[bool]

    def store(self) -> Store:
        """A store over the data, not open yet. Each call gives another, over the same data if it is `shared`."""
        ...

    async def kill(self, store: Store) -> None:
        """End an open store as the death of its process does: nothing is said or given back.

        Its connections are cut, what it had not committed is lost, and where something else than heartbeats proves that
        its node lives (a lock), that is gone when this returns. Called only if the place is `shared`.
        """
        ...
