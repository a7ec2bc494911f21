"""Email's settings: exactly one way to send mails, and a sentence for each unusable value."""

import pytest

from chassis.settings import UnusableSettings, read
from services.email.settings import EmailSettings
from services.email.smtp.server import InvalidServer, Server

DATABASE = "postgresql://orderflow_email:email@localhost/orderflow"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EmailSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATABASE_URL", DATABASE)


def settings() -> EmailSettings:
    return read(EmailSettings)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail", Server("mail", 25)),
        ("smtp://mail:1025/", Server("mail", 1025)),
        ("smtp://ana:p%40ss@mail:2525", Server("mail", 2525, "ana", "p@ss")),
        ("smtp://mail?starttls", Server("mail", 587, starttls=True)),
        ("smtps://ana:pass@mail", Server("mail", 465, "ana", "pass", tls=True)),
        ("smtp://[::1]:25", Server("::1", 25)),
    ],
)
def test_a_mail_servers_url_is_parsed(url: str, server: Server) -> None:
    assert Server.parse(url) == server


@pytest.mark.parametrize(
    "url",
    [
        *("mail:25", "http://mail", "smtp://", "smtp://mail:port", "smtp://mail/path", "smtp://mail?tls"),
        *("smtps://mail?starttls", "smtp://canary@mail", "smtp://mail?starttls=no", "smtp://[::1"),
    ],
)
def test_an_unusable_url_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(InvalidServer, match=r"^A mail server is smtp"):
        Server.parse(url)


def test_a_password_is_not_shown() -> None:
    assert "canary" not in repr(Server.parse("smtp://ana:canary@mail"))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SMTP_URL": "smtp://mail", "MAIL_FOLDER": "mails"},
        {"SMTP_URL": "", "MAIL_FOLDER": ""},
        {"SMTP_URL": "smtp://mail", "MAIL_FOLDER": "mails", "MAIL_RECORD_ONLY": "true"},
        {"MAIL_RECORD_ONLY": "false"},
    ],
)
def test_exactly_one_way_to_send_mails_is_needed(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnusableSettings, match=r"^Set one of SMTP_URL"):
        settings()


@pytest.mark.parametrize("beside", [{}, {"SMTP_URL": "smtp://mail"}, {"MAIL_FOLDER": "mails"}])
def test_recorded_only_wins_over_every_other_way(
    monkeypatch: pytest.MonkeyPatch, beside: dict[str, str]
) -> None:
    for name, value in {**beside, "MAIL_RECORD_ONLY": "true"}.items():
        monkeypatch.setenv(name, value)
    assert settings().mail_record_only


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SMTP_URL", "http://ana:canary@mail", "A mail server is"),
        ("MAIL_FROM", "canary", "No mail can be sent to this address"),
        ("MAIL_FROM", "Ana <пётр@почта.рф>", "No mail can be sent to this address"),
        ("MAIL_CONCURRENCY", "0", "greater than or equal to 1"),
        ("MAIL_RETRY_SECONDS", "0.5", "greater than or equal to 1"),
        ("MAIL_RETRY_SECONDS", "7201", "less than or equal to 7200"),
        ("MAIL_RETRY_SECONDS", "nan", "finite|greater"),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://mail")
    monkeypatch.setenv(name, value)
    with pytest.raises(UnusableSettings, match=f"^{name}: .*{sentence}") as refusal:
        settings()
    assert "canary" not in str(refusal.value)


def test_an_empty_setting_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://ana:canary@mail")
    monkeypatch.setenv("MAIL_FOLDER", "")
    monkeypatch.setenv("MAIL_FROM", "")
    monkeypatch.setenv("MAIL_RETRY_SECONDS", "")
    read = settings()
    assert read.mail_retry_seconds == 300
    assert read.mail_from == "Orderflow <orders@orderflow.example>"
    assert "canary" not in repr(read)
