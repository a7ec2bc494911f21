"""Statements that are joined into one."""

import pytest

from events.statements import Part, can_be_joined, joined


def test_a_statement_alone_stays_as_it_is() -> None:
    assert joined((Part("UPDATE a SET b = $1"),)) == "UPDATE a SET b = $1"


def test_the_arguments_of_all_are_numbered_on_in_order() -> None:
    assert joined(
        (
            Part("INSERT INTO a SELECT $2, $1, $2 RETURNING id", counted=True),
            Part("DELETE FROM b"),
            Part("UPDATE c SET d = $1", counted=True),
        )
    ) == (
        "WITH part_1 AS (INSERT INTO a SELECT $2, $1, $2 RETURNING id), part_2 AS (DELETE FROM b),"
        " part_3 AS (UPDATE c SET d = $4)"
        " SELECT expect_rows($3, (SELECT count(*) FROM part_1), 'INSERT INTO a …'),"
        " expect_rows($5, (SELECT count(*) FROM part_3), 'UPDATE c SET …')"
    )


def test_more_than_nine_arguments_are_told_apart() -> None:
    ten = ", ".join(f"${n}" for n in range(1, 11))
    assert joined((Part(f"INSERT INTO a SELECT {ten}"), Part("DELETE FROM b WHERE c = $1"))).endswith(
        "(DELETE FROM b WHERE c = $11) SELECT true"
    )


@pytest.mark.parametrize(
    "change", ["INSERT INTO a DEFAULT VALUES", "\n    update a SET b = 1", "DELETE FROM a"]
)
def test_a_statement_that_changes_rows_can_be_joined(change: str) -> None:
    assert can_be_joined(change)


@pytest.mark.parametrize(
    "other",
    [
        "SELECT f()",
        "SET LOCAL a TO 1",
        "DO $$ $$",
        "WITH a AS (DELETE FROM b) INSERT INTO c SELECT 1",
        "INSERTED",
    ],
)
def test_a_statement_that_would_be_left_out_or_refused_can_not_be_joined(other: str) -> None:
    assert not can_be_joined(other)


def test_a_quote_in_a_statement_does_not_end_its_name() -> None:
    assert joined((Part("SELECT 'a' FROM b", counted=True),)).endswith(
        "SELECT expect_rows($1, (SELECT count(*) FROM part_1), 'SELECT ''a'' FROM …')"
    )
