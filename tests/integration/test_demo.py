"""`make demo`: exits 0 only if every order ended as expected, and leaves the mails to look at."""

import asyncio
import os
import pty
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from ops.state import lock_state_folder
from sandbox.demo import folder
from tests.embedded import DEADLINE, EXAMPLES, orderflow, running


async def demo(cwd: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    async with orderflow(*arguments, folder=cwd, module="sandbox.demo", **environment) as process:
        return await process.ended(), process.said


def some_examples(into: Path, expected: str, *names: str) -> Path:
    into.mkdir()
    for name in names:
        shutil.copy(EXAMPLES / f"{name}.json", into)
    (into / "expected.toml").write_text(expected)
    return into


async def test_it_succeeds_twice_at_once_beside_a_running_system(tmp_path: Path) -> None:
    async with running(tmp_path / "state"):
        elsewhere = {"PAYMENT_PROVIDER": "paypal", "SMTP_URL": "smtp://127.0.0.1:9"}  # it stays by itself
        [first, second] = await asyncio.gather(demo(tmp_path), demo(tmp_path, **elsewhere))
    for status, said in (first, second):
        assert status == 0, said
        assert "All 33 orders ended as expected, with every mail" in said
        assert "DE-70311 was sent twice with one Idempotency-Key, and is one order." in said
        assert re.search(
            r"AQ-1911 +AQ +811\.00 USD +PAYMENT_REFUNDED +\d{4}-0000\d\d +destination_unserved", said
        )
        assert re.search(r"IE-4 +IE +0\.00 EUR +SHIPPED ", said)
        assert "\x1b" not in said
        assert "Traceback" not in said
    mails = [len(list((each / "mails").glob("*.eml"))) for each in (tmp_path / folder.PARENT).iterdir()]
    assert mails == [131, 131]


async def test_only_the_latest_folders_are_kept_and_those_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"20200101-00000{n}-1" for n in range(4)]
    for name in names:
        (folder.PARENT / name / "postgres").mkdir(parents=True)
    with lock_state_folder(folder.PARENT / names[0]):
        async with folder.new_state() as state:
            assert sorted(path.name for path in folder.PARENT.iterdir()) == [
                names[0],
                *names[2:],
                state.folder.name,
            ]


async def test_it_fails_when_an_order_ends_where_it_should_not(tmp_path: Path) -> None:
    expected = """
        [order]
        total = "46.58"
        ends = "SHIPPED"
        [italy-declined]
        total = "48.68"
        ends = "SHIPPED"
        [antarctica-station]
        total = "811.00"
        ends = "PAYMENT_REFUNDED"
        reason = "lost_at_sea"
        [japan-tea]
        total = "13748"
        ends = "SHIPPED"
    """
    names = ("order", "italy-declined", "antarctica-station", "japan-tea")
    orders = some_examples(tmp_path / "orders", expected, *names)
    unsound = orders / "japan-tea.json"
    unsound.write_text(unsound.read_text("utf-8").replace("JPY", "XXX"), "utf-8")
    status, said = await demo(tmp_path, "--orders", str(orders))
    assert status == 1
    assert "WEB-1042 came to 46.57, not to 46.58." in said
    assert re.search(r"IT-4040 \(\S+\) ended at PAYMENT_FAILED for card_declined, not at SHIPPED\.", said)
    assert "AQ-1911 ended for destination_unserved, not for lost_at_sea." in said
    assert "JP-2041 was not accepted: answered 422" in said
    assert "All 4 orders" not in said


async def test_orders_that_can_not_be_read_are_told_in_a_sentence(tmp_path: Path) -> None:
    status, said = await demo(tmp_path, "--orders", str(tmp_path / "nowhere"))
    assert status == 1
    assert "nowhere can't be read" in said
    assert "Traceback" not in said


async def test_ctrl_c_ends_it_without_a_traceback(tmp_path: Path) -> None:
    async with orderflow(folder=tmp_path, module="sandbox.demo") as process:
        await process.says("Serving on")
        process.send(signal.SIGINT)
        assert await process.ended() in (0, 130)  # 0: it was through before the signal came
    assert "Traceback" not in process.said


async def test_on_a_narrow_terminal_it_shows_the_orders_on_their_way(tmp_path: Path) -> None:
    orders = some_examples(tmp_path / "orders", '[order]\ntotal = "46.57"\nends = "SHIPPED"', "order")
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "40", "LINES": "10"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sandbox.demo", "--orders", str(orders)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env=environment,
    )
    os.close(theirs)
    said = await asyncio.to_thread(_all_of, ours)
    async with asyncio.timeout(DEADLINE):
        assert await process.wait() == 0, said
    assert "WEB-1042 BR ●" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said)


def _all_of(terminal: int) -> str:
    said = b""
    try:
        while read := os.read(terminal, 65536):
            said += read
    except OSError:  # how Linux says that nobody has the other end any more
        pass
    os.close(terminal)
    return said.decode()
