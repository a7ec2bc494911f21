"""The contracts that no service publishes yet are named and shaped, and bound nowhere."""

import inspect

import pytest

from events import life
from events.contracts import EVENTS, TYPES, AboutOrder, Event, type_of
from events.life import LATER_EVENTS
from ops.services import SERVICES, load
from tests.aws_template import FOLDER

LATER_TYPES = {type_of(event) for event in LATER_EVENTS}


def test_every_event_of_life_is_in_its_table_under_a_name_of_its_own() -> None:
    defined = {each for _, each in inspect.getmembers(life, inspect.isclass) if issubclass(each, Event)}
    assert defined - {Event} == set(LATER_EVENTS)
    assert len(LATER_TYPES) == len(LATER_EVENTS)
    assert not LATER_TYPES & set(TYPES)


@pytest.mark.parametrize("event", (*EVENTS, *LATER_EVENTS), ids=type_of)
def test_every_event_has_publishers_that_are_services(event: type[Event[AboutOrder]]) -> None:
    assert event.PUBLISHERS
    assert set(event.PUBLISHERS) <= set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_listens_to_an_event_of_life(service: str) -> None:
    """The queues' bindings, the subscriptions and the template's filters are made from these tables."""
    assert not LATER_TYPES & {type_of(event) for event in load(service).handlers}


@pytest.mark.parametrize("template", ["template.yaml", "service.yaml"])
def test_the_template_binds_no_event_of_life(template: str) -> None:
    text = (FOLDER / template).read_text("utf-8")
    assert [name for name in LATER_TYPES if name in text] == []
