"""Mails in a folder: one file each."""

import email
import email.policy
from dataclasses import replace
from pathlib import Path

import pytest

from services.email.domain import Mail
from services.email.folder import FolderMailer
from services.email.mailer import MailPostponed, MailServerUnavailable
from services.email.rendering import MailRenderer
from tests.factories import one_of_each, order_created

RENDERER = MailRenderer("The Shop <orders@shop.example>")


async def test_every_mail_is_a_file_that_reads_back(tmp_path: Path) -> None:
    mailer = FolderMailer(tmp_path / "state" / "mails")
    events = one_of_each()
    for event in events.values():
        outcome = await mailer.send(RENDERER.render(Mail.about(event)))
        assert outcome.state == "sent"

    files = sorted((tmp_path / "state" / "mails").iterdir())
    assert [file.stem for file in files] == [Mail.about(event).name for event in events.values()]
    assert {file.suffix for file in files} == {".eml"}
    for file, (stage, event) in zip(files, events.items(), strict=True):
        message = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
        assert message["Message-ID"] == f"<{event.subject}.{stage}@shop.example>"


async def test_the_same_mail_again_replaces_the_file(tmp_path: Path) -> None:
    mailer = FolderMailer(tmp_path)
    mail = RENDERER.render(Mail.about(order_created()))
    assert await mailer.send(mail) == await mailer.send(mail)
    [file] = tmp_path.iterdir()
    assert file.read_bytes() == mail.content


async def test_a_file_that_can_not_be_written_postpones_that_mail_only(tmp_path: Path) -> None:
    mailer = FolderMailer(tmp_path)
    mail, other = (RENDERER.render(Mail.about(order_created())) for _ in range(2))
    (tmp_path / f"{mail.name}.eml" / "in the way").mkdir(parents=True)
    with pytest.raises(MailPostponed, match=mail.name):
        await mailer.send(mail)
    with pytest.raises(MailPostponed):
        await mailer.send(replace(mail, name="long" * 100))
    assert (await mailer.send(other)).state == "sent"
    assert {path.suffix for path in tmp_path.iterdir()} == {".eml"}


async def test_a_folder_that_can_not_be_written_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "mails").write_text("a file is in the way")
    mailer = FolderMailer(tmp_path / "mails")
    mail = RENDERER.render(Mail.about(order_created()))
    with pytest.raises(MailServerUnavailable, match="mail folder"):
        await mailer.send(mail)
    (tmp_path / "mails").unlink()
    assert (await mailer.send(mail)).state == "sent"
