"""A command that changes something records the person who called it."""

import os
import pwd

import pytest

from ops.actor import NobodyNamed, UnusableName, actor


def account(name: str, uid: int, shell: str) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", "/nonexistent", shell))


def logged_in_as(monkeypatch: pytest.MonkeyPatch, entry: pwd.struct_passwd) -> None:
    monkeypatch.setattr(os, "getuid", lambda: entry.pw_uid)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {entry.pw_uid: entry}[uid])


def test_the_account_of_a_person_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in_as(monkeypatch, account("ana", 1000, "/bin/bash"))
    assert actor("") == "ana"


def test_a_given_name_is_recorded_in_place_of_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in_as(monkeypatch, account("ana", 1000, "/bin/bash"))
    assert actor(" Zoë Müller ") == "Zoë Müller"


@pytest.mark.parametrize(
    "entry",
    [
        account("root", 0, "/bin/bash"),
        account("orderflow", 10001, "/usr/sbin/nologin"),
        account("daemon", 1, "/bin/false"),
    ],
)
@pytest.mark.parametrize("named", ["", "  "])
def test_an_account_that_belongs_to_no_person_needs_a_name(
    monkeypatch: pytest.MonkeyPatch, entry: pwd.struct_passwd, named: str
) -> None:
    logged_in_as(monkeypatch, entry)
    with pytest.raises(NobodyNamed, match=f"--as NAME or ORDERFLOW_ACTOR=NAME. The account {entry.pw_name} "):
        actor(named)


def test_an_account_without_a_name_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in_as(monkeypatch, account("ana", 1000, "/bin/bash"))
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(NobodyNamed, match="uid 4711"):
        actor("")


@pytest.mark.parametrize("named", ["\u200b", "ana\nroot", "a" * 101])
def test_a_name_can_be_read_on_one_line(named: str) -> None:
    with pytest.raises(UnusableName):
        actor(named)
