"""Mails as files."""

import email
import email.policy
from dataclasses import replace
from pathlib import Path

import pytest

from services.email.domain import Mail
from services.email.folder import FolderMailer
from services.email.letters import Letters
from services.email.mailer import MailPostponed, MailServerUnavailable
from tests.factories import one_of_each, order_created

LETTERS = Letters("The Shop <orders@shop.example>")


async def test_every_mail_is_a_file_that_reads_back(tmp_path: Path) -> None:
    mailer = FolderMailer(tmp_path / "state" / "mails")
    events = one_of_each()
    for event in events.values():
        outcome = await mailer.send(LETTERS.write(Mail.about(event)))
        assert outcome.state == "sent"

    files = sorted((tmp_path / "state" / "mails").iterdir())
    assert [file.stem for file in files] == [Mail.about(event).name for event in events.values()]
    assert {file.suffix for file in files} == {".eml"}
    for file, (stage, event) in zip(files, events.items(), strict=True):
        message = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
        assert message["Message-ID"] == f"<{event.subject}.{stage}@shop.example>"


async def test_the_same_mail_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    mailer = FolderMailer(tmp_path)
    letter = LETTERS.write(Mail.about(order_created()))
    assert await mailer.send(letter) == await mailer.send(letter)
    [file] = tmp_path.iterdir()
    assert file.read_bytes() == letter.content


async def test_a_file_that_can_not_be_written_fails_that_mail_alone(tmp_path: Path) -> None:
    mailer = FolderMailer(tmp_path)
    letter, other = (LETTERS.write(Mail.about(order_created())) for _ in range(2))
    (tmp_path / f"{letter.name}.eml" / "in the way").mkdir(parents=True)
    with pytest.raises(MailPostponed, match=letter.name):
        await mailer.send(letter)
    with pytest.raises(MailPostponed):
        await mailer.send(replace(letter, name="long" * 100))
    assert (await mailer.send(other)).state == "sent"
    assert {path.suffix for path in tmp_path.iterdir()} == {".eml"}


async def test_a_folder_that_cannot_be_written_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "mails").write_text("a file is in the way")
    mailer = FolderMailer(tmp_path / "mails")
    letter = LETTERS.write(Mail.about(order_created()))
    with pytest.raises(MailServerUnavailable, match="mail folder"):
        await mailer.send(letter)
    (tmp_path / "mails").unlink()
    assert (await mailer.send(letter)).state == "sent"
