"""The outcome of a mail for every answer that a mail server can give, against a real server."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from services.email.domain import Mail
from services.email.mailer import MailPerhapsSent, MailPostponed, MailServerUnavailable, RenderedMail
from services.email.rendering import MailRenderer
from services.email.smtp import connections
from services.email.smtp.mailer import SmtpMailer, connect
from services.email.smtp.server import RFC_5321, Server
from services.email.work import MAIL_RETRIES
from tests.factories import an_item, an_order, order_created
from tests.integration.mail_server import CUT, SILENCE, MailServer, authenticates, mail_server
from tests.waiting import eventually

RENDERER = MailRenderer("The Shop <orders@shop.example>")


def a_mail(name: str = "Mug") -> RenderedMail:
    return RENDERER.render(Mail.about(order_created(an_order(items=(an_item(name=name),)))))


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with mail_server() as running:
        yield running


@pytest.fixture
async def mailer(server: MailServer) -> AsyncIterator[SmtpMailer]:
    async with connect(Server.parse(server.url), "shop.example") as connected:
        yield connected


async def test_a_mail_arrives_byte_for_byte_and_the_servers_answer_is_recorded(
    server: MailServer, mailer: SmtpMailer
) -> None:
    rendered = a_mail(name="\n.\n..dots. 日本")
    outcome = await mailer.send(rendered)

    assert (outcome.state, outcome.answer) == ("sent", "250 2.0.0 Ok: queued as 1")
    [mail] = server.mails
    assert mail.content == rendered.content
    assert (mail.sender, mail.recipient) == ("orders@shop.example", "ana@example.com")


async def test_lines_that_begin_with_a_dot_arrive_whole(server: MailServer, mailer: SmtpMailer) -> None:
    content = b"Subject: dots\r\n\r\n.\r\n..\r\n.one\r\n"
    await mailer.send(RenderedMail("dots", "orders@shop.example", "ana@example.com", content))
    assert server.mails[0].content == content


async def test_mails_share_connections(server: MailServer, mailer: SmtpMailer) -> None:
    for _ in range(5):
        await mailer.send(a_mail())
    assert server.connections == 1
    await asyncio.gather(*(mailer.send(a_mail()) for _ in range(8)))
    assert server.connections <= 8
    assert len(server.mails) == 13


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("RCPT", "550 5.1.1 <ana@example.com>: no such user"),
        ("RCPT", "501 5.1.3 Bad address"),
        ("DATA", "554 5.5.1 No valid recipients"),
        ("CONTENT", "554 5.7.1 Looks like spam"),
        ("MAIL", "552 5.3.4 Message too large"),
    ],
)
async def test_a_definite_refusal_is_an_outcome_and_the_next_mail_goes_through(
    server: MailServer, mailer: SmtpMailer, command: str, answer: str
) -> None:
    server.answers[command].append(answer)
    outcome = await mailer.send(a_mail())
    assert outcome.state == "refused"
    assert outcome.answer == answer.replace("ana@example.com", "the recipient")

    assert (await mailer.send(a_mail())).state == "sent"
    assert server.connections == 1
    assert len(server.mails) == 1


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("RCPT", "451 4.7.1 <ana@example.com> Greylisted"),
        ("RCPT", "452 4.2.2 Mailbox full"),
        ("DATA", "451 4.3.0 Later"),
        ("CONTENT", "451 4.3.0 Later"),
        ("DATA", "250 2.0.0 Nonsense"),
    ],
)
async def test_a_temporary_refusal_postpones_this_mail_only(
    server: MailServer, mailer: SmtpMailer, command: str, answer: str
) -> None:
    server.answers[command].append(answer)
    rendered = a_mail()
    with pytest.raises(MailPostponed, match=answer[:9]) as postponed:
        await mailer.send(rendered)
    assert "ana@example.com" not in str(postponed.value)
    assert server.mails == []

    assert (await mailer.send(rendered)).state == "sent"
    assert server.connections == 1


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("MAIL", "451 4.3.0 Try later"),
        ("MAIL", "550 5.7.1 Sender not welcome"),
        ("MAIL", "530 5.7.0 Authentication required"),
        ("MAIL", "421 4.3.2 Shutting down"),
        ("RCPT", "421 4.7.28 Too much mail for <ana@example.com>"),
        ("RCPT", "503 5.5.1 AUTH first"),
        ("RCPT", "530 5.7.0 Authentication required"),
        ("RCPT", "534 5.7.9 Authentication mechanism is too weak"),
        ("DATA", "535 5.7.8 Authentication credentials invalid"),
        ("DATA", "538 5.7.11 Encryption required"),
        ("CONTENT", "421 4.7.28 Too much mail for <ana@example.com>"),
    ],
)
async def test_a_refusal_that_may_concern_every_mail_postpones_this_one_and_says_so(
    server: MailServer, mailer: SmtpMailer, command: str, answer: str
) -> None:
    server.answers[command].append(answer)
    with pytest.raises(MailPostponed, match=answer[:9]) as postponed:
        await mailer.send(a_mail())
    assert postponed.value.perhaps_all
    assert "ana@example.com" not in str(postponed.value)
    assert server.mails == []
    assert (await mailer.send(a_mail())).state == "sent"
    assert server.connections == 1 + answer.startswith("421")


async def test_a_refused_recipient_does_not_hold_up_the_others(
    server: MailServer, mailer: SmtpMailer
) -> None:
    server.to["busy@example.com"] = "421 4.7.28 Too much mail for this recipient"
    for _ in range(3):
        with pytest.raises(MailPostponed, match="421"):
            await mailer.send(
                RenderedMail("busy", "orders@shop.example", "busy@example.com", b"Subject: x\r\n\r\n")
            )
        assert (await mailer.send(a_mail())).state == "sent"
    assert server.connections <= 4  # one ends with each 421; the mail is not offered twice in a row
    assert server.commands.count("RCPT") == 6


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("GREETING", "421 4.3.2 Shutting down"),
        ("GREETING", "554 5.7.1 Not you"),
        ("GREETING", "521 5.3.2 No mail here"),
        ("EHLO", "421 4.3.2 Shutting down"),
    ],
)
async def test_a_refusal_before_any_mail_is_an_outage(
    server: MailServer, mailer: SmtpMailer, command: str, answer: str
) -> None:
    server.answers[command].append(answer)
    with pytest.raises(MailServerUnavailable, match=answer[:9]):
        await mailer.send(a_mail())
    assert (await mailer.send(a_mail())).state == "sent"
    assert len(server.mails) == 1


async def test_a_server_without_ehlo_is_greeted_with_helo(server: MailServer, mailer: SmtpMailer) -> None:
    server.answers["EHLO"].append("502 5.5.1 Command not implemented")
    assert (await mailer.send(a_mail())).state == "sent"
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    ["251 2.1.5 Will forward", "252 2.1.5 Can't verify, will try", "250-2.1.5 Ok\r\n250 as you like"],
)
async def test_a_recipient_may_be_accepted_with_another_code_than_250(
    server: MailServer, mailer: SmtpMailer, answer: str
) -> None:
    server.answers["RCPT"].append(answer)
    assert (await mailer.send(a_mail())).state == "sent"
    assert (await mailer.send(a_mail())).state == "sent"
    assert len(server.mails) == 2


async def test_an_answer_of_several_lines_is_kept_on_one(server: MailServer, mailer: SmtpMailer) -> None:
    server.answers["RCPT"].append("550-5.1.1 <ANA@example.com>\r\n550-5.1.1 no such\r\n550 5.1.1 user")
    outcome = await mailer.send(a_mail())
    assert outcome.answer == "550 5.1.1 <the recipient> 5.1.1 no such 5.1.1 user"
    assert (await mailer.send(a_mail())).state == "sent"


async def test_a_mail_waits_for_a_connection_if_the_server_takes_no_further_one(
    server: MailServer, mailer: SmtpMailer
) -> None:
    server.most_connections = 2
    for _ in range(10):
        outcomes = await asyncio.gather(*(mailer.send(a_mail()) for _ in range(20)))
        assert {outcome.state for outcome in outcomes} == {"sent"}
    assert server.connections == 2
    assert server.turned_away
    assert len(server.mails) == 200


async def test_a_server_that_is_down_is_an_outage_until_it_is_up(
    server: MailServer, mailer: SmtpMailer
) -> None:
    await mailer.send(a_mail())
    await server.stop()
    for _ in range(2):
        with pytest.raises(MailServerUnavailable):
            await mailer.send(a_mail())
    await server.start()
    assert (await mailer.send(a_mail())).state == "sent"
    assert len(server.mails) == 2


async def test_a_connection_that_the_server_dropped_while_idle_is_replaced(
    server: MailServer, mailer: SmtpMailer
) -> None:
    await mailer.send(a_mail())
    server.cut_all()
    assert (await mailer.send(a_mail())).state == "sent"
    assert server.connections == 2


@pytest.mark.parametrize(
    ("command", "answer"), [("MAIL", CUT), ("MAIL", "421 4.4.2 Idle for too long"), ("DATA", CUT)]
)
async def test_a_connection_that_ends_as_it_is_used_again_is_replaced(
    server: MailServer, mailer: SmtpMailer, command: str, answer: str
) -> None:
    await mailer.send(a_mail())
    server.answers[command].append(answer)
    assert (await mailer.send(a_mail())).state == "sent"
    assert len(server.mails) == 2


async def test_a_connection_that_was_idle_for_long_is_closed_and_replaced(
    server: MailServer, mailer: SmtpMailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", -1.0)
    await mailer.send(a_mail())
    await mailer.send(a_mail())
    assert (len(server.mails), server.connections) == (2, 2)
    await eventually(lambda: asyncio.sleep(0, server.open), lambda open_: open_ <= 1)


async def test_a_connection_that_can_not_be_reset_is_replaced(server: MailServer, mailer: SmtpMailer) -> None:
    server.answers["RCPT"].append("550 5.1.1 No such user")
    await mailer.send(a_mail())
    server.answers["RSET"].append(CUT)
    await mailer.send(a_mail())
    assert server.commands.count("RSET") == 1
    assert (len(server.mails), server.connections) == (1, 2)


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
async def test_a_connection_cut_before_the_final_dot_means_not_sent(
    server: MailServer, mailer: SmtpMailer, command: str
) -> None:
    server.answers[command].append(CUT)
    with pytest.raises(MailPostponed) as postponed:
        await mailer.send(a_mail())
    assert postponed.value.perhaps_all
    assert server.mails == []
    assert (await mailer.send(a_mail())).state == "sent"


async def test_a_connection_cut_after_the_final_dot_means_perhaps_sent(
    server: MailServer, mailer: SmtpMailer
) -> None:
    server.answers["CONTENT"].append(CUT)
    rendered = a_mail()
    with pytest.raises(MailPerhapsSent):
        await mailer.send(rendered)
    assert (await mailer.send(rendered)).state == "sent"
    first, second = server.mails
    assert first.content == second.content


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
async def test_a_command_without_an_answer_in_time_means_not_sent(server: MailServer, command: str) -> None:
    timeouts = replace(RFC_5321, **{command.lower(): 0.1})
    async with connect(Server.parse(server.url), "shop.example", timeouts) as mailer:
        server.answers[command].append(SILENCE)
        with pytest.raises(MailPostponed, match=f"did not answer {command} within") as postponed:
            await mailer.send(a_mail())
        assert postponed.value.perhaps_all
        assert (await mailer.send(a_mail())).state == "sent"
    assert (len(server.mails), server.connections) == (1, 2)


async def test_a_mail_without_an_answer_in_time_means_perhaps_sent(server: MailServer) -> None:
    timeouts = replace(RFC_5321, content=0.1)
    async with connect(Server.parse(server.url), "shop.example", timeouts) as mailer:
        server.answers["CONTENT"].append(SILENCE)
        with pytest.raises(MailPerhapsSent):
            await mailer.send(a_mail())
    assert len(server.mails) == 1


@pytest.mark.parametrize("command", ["GREETING", "EHLO"])
async def test_a_server_that_does_not_introduce_itself_in_time_is_an_outage(
    server: MailServer, command: str
) -> None:
    timeouts = replace(RFC_5321, opening=0.1)
    async with connect(Server.parse(server.url), "shop.example", timeouts) as mailer:
        server.answers[command].append(SILENCE)
        with pytest.raises(MailServerUnavailable, match="no answer in time"):
            await mailer.send(a_mail())


async def test_a_host_that_does_not_exist_is_an_outage() -> None:
    for host in ("nowhere.invalid", "no..where"):
        async with connect(Server(host, 25), "shop.example") as mailer:
            with pytest.raises(MailServerUnavailable, match="can't be used"):
                await mailer.send(a_mail())


def test_the_timeouts_are_those_of_rfc_5321() -> None:
    """4.5.3.2: greeting, MAIL and RCPT five minutes, DATA two, a block of data three, the final dot ten."""
    minutes = [seconds / 60 for seconds in (RFC_5321.opening, RFC_5321.mail, RFC_5321.rcpt, RFC_5321.data)]
    assert minutes == [5, 5, 5, 2]
    assert RFC_5321.content / 60 == 3 + 10
    assert sum(astuple(RFC_5321)) < MAIL_RETRIES.deadline


async def test_an_answer_that_does_not_fit_a_mail_means_perhaps_sent(
    server: MailServer, mailer: SmtpMailer
) -> None:
    server.answers["CONTENT"].append("354 Go on")
    with pytest.raises(MailPerhapsSent, match="354"):
        await mailer.send(a_mail())


async def test_a_cancelled_mail_does_not_leave_its_connection_to_the_next(
    server: MailServer, mailer: SmtpMailer
) -> None:
    server.answers["CONTENT"].append(SILENCE)
    sending = asyncio.create_task(mailer.send(a_mail()))
    await server.received(1)
    sending.cancel()
    await asyncio.wait({sending})
    assert sending.cancelled()
    assert (await mailer.send(a_mail())).state == "sent"
    assert server.connections == 2


async def test_addresses_outside_of_ascii_are_sent_if_the_server_takes_them(
    server: MailServer, mailer: SmtpMailer
) -> None:
    rendered = RenderedMail("utf8", "orders@shop.example", "пётр@почта.рф", b"Subject: x\r\n\r\nx\r\n")
    assert (await mailer.send(rendered)).state == "sent"
    assert server.mails[0].recipient == "пётр@почта.рф"


async def test_addresses_outside_of_ascii_are_refused_if_the_server_does_not_take_them() -> None:
    rendered = RenderedMail("utf8", "orders@shop.example", "пётр@почта.рф", b"Subject: x\r\n\r\nx\r\n")
    async with (
        mail_server(enable_SMTPUTF8=False) as older,
        connect(Server.parse(older.url), "shop.example") as mailer,
    ):
        outcome = await mailer.send(rendered)
        assert outcome.state == "refused"
        assert "SMTPUTF8" in outcome.answer
        assert (await mailer.send(a_mail())).state == "sent"
    assert len(older.mails) == 1


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_a_user_is_authenticated_and_a_wrong_password_is_an_outage() -> None:
    options = {
        "auth_required": True,
        "auth_require_tls": False,
        "authenticator": authenticates("ana", "p@ss"),
    }
    async with mail_server(**options) as server:
        address = f"127.0.0.1:{server.port}"
        async with connect(Server.parse(f"smtp://ana:p%40ss@{address}"), "shop.example") as mailer:
            assert (await mailer.send(a_mail())).state == "sent"
        async with connect(Server.parse(f"smtp://ana:canary@{address}"), "shop.example") as mailer:
            with pytest.raises(MailServerUnavailable) as refused:
                await mailer.send(a_mail())
        async with connect(Server.parse(f"smtp://{address}"), "shop.example") as mailer:
            with pytest.raises(MailPostponed, match="530") as postponed:
                await mailer.send(a_mail())
            assert postponed.value.perhaps_all
    assert "canary" not in str(refused.value)
    assert [mail.user for mail in server.mails] == ["ana"]


@pytest.fixture
async def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A certificate of 127.0.0.1 that this machine trusts for the length of the test."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    )
    quiet = asyncio.subprocess.DEVNULL
    made = await asyncio.create_subprocess_exec(openssl, *command.split(), stdout=quiet, stderr=quiet)
    assert await made.wait() == 0
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def test_starttls_is_required_and_the_certificate_is_checked(
    server: MailServer, mailer: SmtpMailer, certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mail_server(tls_context=certificate, require_starttls=True) as secure:
        url = f"{secure.url}?starttls"
        async with connect(Server.parse(url), "shop.example") as mailer:
            assert (await mailer.send(a_mail())).state == "sent"
        assert [mail.tls for mail in secure.mails] == [True]

        monkeypatch.delenv("SSL_CERT_FILE")
        async with connect(Server.parse(url), "shop.example") as distrustful:
            with pytest.raises(MailServerUnavailable):
                await distrustful.send(a_mail())
        assert len(secure.mails) == 1
    async with connect(Server.parse(f"{server.url}?starttls"), "shop.example") as insisting:
        with pytest.raises(MailServerUnavailable):
            await insisting.send(a_mail())
    assert server.mails == []
