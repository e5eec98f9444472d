"""Opening a SQLite database: refuse what is not ours or not safe, set what durability needs, migrate.

Every setting that a promise rests on is read back.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import NoReturn

from perdure.errors import SchemaTooNewError, TargetError

APPLICATION_ID = 0x70647265
"""`pdre`, in the file's header: which application a SQLite file belongs to."""

MINIMUM_SQLITE = (3, 38, 0)

_NETWORK_FILE_SYSTEMS = {
    "9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3",
    "smbfs",
}  # fmt: skip


def database_path(target: str) -> Path | None:
    """The file a target names, or `None` for `:memory:`. Raises `TargetError` for what cannot be a database."""
    if "\0" in target:
        raise TargetError("the target contains a NUL character. Name a file.")
    name = target.removeprefix("sqlite:///") if target.startswith("sqlite:") else target
    if name == ":memory:" or target in {"sqlite://", "sqlite:///"}:
        return None
    if not name or "://" in name:
        raise TargetError(
            f"{shown(target)}: not a target perdure knows. Give a path, ':memory:', 'sqlite:///path' or 'postgresql://…'."
        )
    path = Path(os.path.realpath(os.path.expanduser(name)))  # noqa: PTH111  # leaves an unknown ~user as it is
    _check_file(path)
    return path


def shown(target: str) -> str:
    """A target that is none, for people: of a URL its scheme alone, for a password may be anywhere in the rest."""
    scheme, separator, _ = target.partition("://")
    return repr(f"{scheme}://…" if separator else target)


def _check_file(path: Path) -> None:
    if not path.parent.is_dir():
        raise TargetError(f"{path}: its directory does not exist. Create {path.parent} first.")
    kind = _file_system(path)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise TargetError(
            f"{path}: lies on a network file system ({kind}), whose locks and syncs cannot be trusted. "
            "Use a local disk, or PostgreSQL."
        )
    try:
        status = path.stat()
    except FileNotFoundError:
        if not os.access(path.parent, os.W_OK):
            raise TargetError(f"{path}: {path.parent} is read-only for this process. Give it write access.") from None
        return
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}. Name a file this process can read and write.") from error
    if stat.S_ISDIR(status.st_mode):
        raise TargetError(f"{path}: is a directory. Name a file in it, such as {path / 'agents.db'}.")
    if not stat.S_ISREG(status.st_mode):
        raise TargetError(f"{path}: is not a regular file. Name a database file.")
    if status.st_nlink > 1:
        raise TargetError(
            f"{path}: has {status.st_nlink} hard links, and SQLite's side files would differ by name. Use one name."
        )
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise TargetError(f"{path}: is read-only for this process. Give it write access to the file and its directory.")


def _file_system(path: Path) -> str:
    """Type of the file system a path lies on, where the kernel tells."""
    best, kind = "", ""
    with suppress(OSError), open("/proc/mounts", encoding="utf-8", errors="replace") as mounts:  # noqa: PTH123  # procfs is no path of the user's
        for line in mounts:
            _, point, type_, *_ = line.split()
            point = point.encode().decode("unicode_escape")
            if len(point) > len(best) and Path(point) in (path, *path.parents):
                best, kind = point, type_
    return kind


def create_private(path: Path) -> None:
    """Create the file readable by its owner alone. An existing one is not opened: closing it would drop its locks."""
    if not path.exists():
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def prepare(connection: sqlite3.Connection, name: str) -> None:
    """Check that a new connection's database is ours, configure it, and bring its schema up to date."""
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        raise TargetError(f"SQLite {sqlite3.sqlite_version} is too old. Use a Python built with 3.38 or newer.")
    try:
        _check_owner(connection, name)
        _configure(connection, name)
        _migrate(connection, name)
    except sqlite3.Error as error:
        refuse(error, name)


def refuse(error: sqlite3.Error, name: str) -> NoReturn:
    """Raise what a driver's error means for a target."""
    text = str(error)
    if "not a database" in text or "malformed" in text or "file is encrypted" in text:
        raise TargetError(
            f"{name}: is not a SQLite database ({text}). Name another file; this one was not touched."
        ) from error
    if "readonly" in text or "unable to open" in text:
        raise TargetError(f"{name}: cannot be written ({text}). Give this process write access.") from error
    if "disk is full" in text:
        raise TargetError(
            f"{name}: {text}, and nothing was changed. Free space: bringing a database of an older perdure up to date "
            "takes as much again as it has."
        ) from error
    raise TargetError(f"{name}: {text}.") from error


def _check_owner(connection: sqlite3.Connection, name: str) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == APPLICATION_ID or (application == 0 and tables == 0):
        return
    raise TargetError(
        f"{name}: belongs to another application (application_id {application:#x}, {tables} tables and indexes). "
        "Name another file; this one was not touched."
    )


def _configure(connection: sqlite3.Connection, name: str) -> None:
    memory = name == ":memory:"
    for setting, wanted in (
        ("journal_mode", "memory" if memory else "wal"),
        ("synchronous", 2),
        ("wal_autocheckpoint", 0),
        ("trusted_schema", 0),
    ):
        connection.execute(f"PRAGMA {setting} = {wanted}")
        (found,) = connection.execute(f"PRAGMA {setting}").fetchone()
        if found != wanted:
            raise TargetError(
                f"{name}: SQLite keeps {setting} at {found} instead of {wanted}, without which perdure cannot promise "
                "durability. Use another file system or SQLite build."
            )
    connection.execute("PRAGMA cache_size = -65536")


def _migrations() -> list[str]:
    folder = resources.files("perdure.storage") / "schema" / "sqlite"
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def _migrate(connection: sqlite3.Connection, name: str) -> None:
    migrations = _migrations()
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        _check_version(version, len(migrations), name)
        for script in migrations[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        if version < len(migrations):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # at some errors of a disk, SQLite has taken it back already
            connection.execute("ROLLBACK")
        raise


def _check_version(version: int, known: int, name: str) -> None:
    if version > known:
        raise SchemaTooNewError(
            f"{name}: was written by a newer perdure (schema {version}; this one knows {known}). Upgrade perdure."
        )


def _statements(script: str) -> list[str]:
    """A script's statements; `executescript` would commit between them."""
    statements: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
