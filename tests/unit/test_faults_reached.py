"""The states that a soak counts in its logs are found by texts that the code really logs."""

from pathlib import Path

import pytest

from tests.faults.reached import IN_LOGS, counts_in

LIBS = Path(__file__).resolve().parents[2] / "libs"


@pytest.mark.parametrize("text", IN_LOGS.values(), ids=IN_LOGS.keys())
def test_the_code_logs_each_text(text: str) -> None:
    assert any(text in module.read_text(encoding="utf-8") for module in LIBS.rglob("*.py"))


def test_each_line_counts_for_the_states_that_it_mentions() -> None:
    lines = [
        '{"message":"charges: paused: the provider is away"}',
        '{"message":"mails: paused: no subject gets an answer: no answer"}',
        '{"message":"billing: event 1 parked: KillsProcess()"}',
        '{"message":"order 1: SHIPPED after 0.2 s"}',
    ]
    assert counts_in(lines) == {"outages begun": 2, "events parked": 1, "events that kill their process": 1}
