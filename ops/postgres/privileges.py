"""As whom PostgreSQL runs: it refuses to be root, so root needs a way to start it as somebody else."""

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Launcher:
    """A way to start a program: the command put before its own, and the account its files must belong to."""

    name: str
    uid: int
    gid: int
    prefix: tuple[str, ...] = ()

    def give(self, path: Path) -> None:
        """Makes `path` and all in it the account's, its top last: a change cut short is then done again."""
        if path.stat().st_uid == self.uid:
            return
        for inner in path.rglob("*"):
            os.chown(inner, self.uid, self.gid, follow_symlinks=False)
        os.chown(path, self.uid, self.gid)


def launchers() -> list[Launcher]:
    """The ways to start PostgreSQL, best first: which of them works here is for the caller to try.

    An ordinary account needs none. For root:

    1. A user namespace in which root looks like an account of less power; seccomp or AppArmor may forbid it.
    2. Dropping to that account, if it can reach the programs and the data: not below /root.
    3. Dropping to it with one capability kept, to reach them all the same. (Copying the programs out would
       not do: the data is mostly behind the same door.)
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        return [Launcher("as this account", uid, gid)]
    account = _unprivileged_account()
    if account is None:
        return []
    to_uid, to_gid = account.pw_uid, account.pw_gid
    return [
        # Mapped to an account that exists: initdb looks its own name up.
        Launcher(
            "in a user namespace",
            uid,
            gid,
            ("unshare", "--user", f"--map-user={to_uid}", f"--map-group={to_gid}", "--"),
        ),
        # Python's `user=` would do, but uvloop does not know it.
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
                "--securebits=+no_setuid_fixup",  # without it access(2) says that the capability is not there
                "--inh-caps=+dac_override",
                "--ambient-caps=+dac_override",
                "--",
            ),
        ),
    ]


# The file is given by its full path: once dropped, not even Python's own modules may be readable.
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
