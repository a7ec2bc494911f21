"""Launchers: PostgreSQL refuses to run as root, so root needs a way to start it as another account."""

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Launcher:
    """A way to start a program: a command prefix, and the account that must own the program's files."""

    name: str
    uid: int
    gid: int
    prefix: tuple[str, ...] = ()

    def give_ownership(self, path: Path) -> None:
        """Gives the account `path` and all in it; `path` last, so that an interrupted change is redone."""
        if path.stat().st_uid == self.uid:
            return
        for inner in path.rglob("*"):
            os.chown(inner, self.uid, self.gid, follow_symlinks=False)
        os.chown(path, self.uid, self.gid)


def launchers() -> list[Launcher]:
    """Launchers for PostgreSQL, best first. The caller has to try which of them works here.

    An ordinary account starts it as itself. Root has these:

    1. A user namespace that maps root to an unprivileged account. seccomp or AppArmor may forbid it.
    2. Dropping to that account. It must be able to reach the programs and the data, so not below /root.
    3. Dropping to it and keeping the capability to reach them. (A copy of the programs would not suffice: the
       data is mostly in the same closed folder.)
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        return [Launcher("as this account", uid, gid)]
    account = _unprivileged_account()
    if account is None:
        return []
    to_uid, to_gid = account.pw_uid, account.pw_gid
    return [
        # The account must exist: initdb looks up its own name.
        Launcher(
            "in a user namespace",
            uid,
            gid,
            ("unshare", "--user", f"--map-user={to_uid}", f"--map-group={to_gid}", "--"),
        ),
        # uvloop does not support the `user=` of Python's subprocess.
        Launcher(
            f"as {account.pw_name}",
            to_uid,
            to_gid,
            (sys.executable, "-I", "-S", "-c", _DROP, str(to_uid), str(to_gid)),
        ),
        Launcher(
            f"as {account.pw_name} with CAP_DAC_OVERRIDE",
            to_uid,
            to_gid,
            (
                "setpriv",
                f"--reuid={to_uid}",
                f"--regid={to_gid}",
                "--clear-groups",
                "--securebits=+no_setuid_fixup",  # else access(2) ignores the capability
                "--inh-caps=+dac_override",
                "--ambient-caps=+dac_override",
                "--",
            ),
        ),
    ]


# Full path, and no search: after the drop, even Python's own modules may be unreadable.
_DROP = """
import os, sys
uid, gid, *command = sys.argv[1:]
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
os.execv(command[0], command)
"""


def _unprivileged_account() -> pwd.struct_passwd | None:
    by_name = {account.pw_name: account for account in pwd.getpwall()}
    return by_name.get("postgres") or by_name.get("nobody")
