"""The report of a soak says which states it reached: it looks for sentences that the code really logs."""

from pathlib import Path

import pytest

from tests.faults.reached import IN_LOGS, said

LIBS = Path(__file__).resolve().parents[2] / "libs"


@pytest.mark.parametrize("words", IN_LOGS.values(), ids=IN_LOGS.keys())
def test_each_sentence_that_is_looked_for_is_one_that_the_code_logs(words: str) -> None:
    assert any(words in module.read_text(encoding="utf-8") for module in LIBS.rglob("*.py"))


def test_each_line_counts_for_the_states_that_it_speaks_of() -> None:
    lines = [
        '{"message":"charges: paused: the provider is away"}',
        '{"message":"mails: paused: no subject gets an answer: no answer"}',
        '{"message":"billing: event 1 parked: KillsProcess()"}',
        '{"message":"order 1: SHIPPED after 0.2 s"}',
    ]
    assert said(lines) == {"outages begun": 2, "events parked": 1, "events that kill their process": 1}
