"""A command that changes something records the person who called it."""

import os
import pwd

import pytest

from ops.actor import ActorNotNamed, UnusableName, resolve_actor


def account(name: str, uid: int, shell: str) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", "/nonexistent", shell))


def logged_in_as(monkeypatch: pytest.MonkeyPatch, entry: pwd.struct_passwd) -> None:
    monkeypatch.setattr(os, "getuid", lambda: entry.pw_uid)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {entry.pw_uid: entry}[uid])


def test_the_account_of_a_person_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in_as(monkeypatch, account("ana", 1000, "/bin/bash"))
    assert resolve_actor("") == "ana"


def test_a_given_name_replaces_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in_as(monkeypatch, account("ana", 1000, "/bin/bash"))
    assert resolve_actor(" Zoë Müller ") == "Zoë Müller"


@pytest.mark.parametrize(
    "entry",
    [
        account("root", 0, "/bin/bash"),
        account("orderflow", 10001, "/usr/sbin/nologin"),
        account("daemon", 1, "/bin/false"),
    ],
)
@pytest.mark.parametrize("named", ["", "  "])
def test_a_service_account_or_root_needs_a_name(
    monkeypatch: pytest.MonkeyPatch, entry: pwd.struct_passwd, named: str
) -> None:
    logged_in_as(monkeypatch, entry)
    with pytest.raises(ActorNotNamed, match=f"ORDERFLOW_ACTOR=NAME: the account {entry.pw_name} "):
        resolve_actor(named)


def test_an_account_without_a_name_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in_as(monkeypatch, account("ana", 1000, "/bin/bash"))
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(ActorNotNamed, match="uid 4711"):
        resolve_actor("")


@pytest.mark.parametrize("named", ["\u200b", "ana\nroot", "a" * 101])
def test_a_name_must_be_one_printable_line(named: str) -> None:
    with pytest.raises(UnusableName):
        resolve_actor(named)
