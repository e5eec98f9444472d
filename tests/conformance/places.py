"""The stores that the suite holds to the contract. For another store, write one more class and name it in `PLACES`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from perdure.storage.sqlite import SQLiteStore
from perdure.storage.store import Store


class Place(Protocol):
    """Somewhere data lies, and how to open it.

    Attributes:
        name: What the tests over it are called.
        shared: Whether the data outlives a store that was closed, and several may have it open at once.
    """

    name: ClassVar[str]
    shared: ClassVar[bool]

    def __init__(self, folder: Path) -> None: ...

    def store(self) -> Store:
        """A store over the data, not open yet."""
        ...

    async def kill(self, store: Store) -> None:
        """End an open store as the death of its process does: nothing is given back, what proves its life is gone."""
        ...


class SQLiteFile:
    name: ClassVar[str] = "sqlite-file"
    shared: ClassVar[bool] = True

    def __init__(self, folder: Path) -> None:
        self._path = folder / "actors.db"

    def store(self) -> Store:
        return SQLiteStore(self._path)

    async def kill(self, store: Store) -> None:
        assert isinstance(store, SQLiteStore)
        await store._disconnect()  # noqa: SLF001  # a death has no public name


class SQLiteMemory:
    name: ClassVar[str] = "sqlite-memory"
    shared: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        del folder

    def store(self) -> Store:
        return SQLiteStore(":memory:")

    async def kill(self, store: Store) -> None:
        raise NotImplementedError("its data ends with it")


PLACES: tuple[type[Place], ...] = (SQLiteFile, SQLiteMemory)
