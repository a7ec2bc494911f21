"""The AWS template agrees with the code, and the check of that reports whatever is broken."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter
from pydantic_settings import BaseSettings

from events.contracts import type_of
from ops.migrate import ROLES
from ops.services import SERVICES, load
from services.invoice import api as invoice_api
from services.order import api as order_api
from tests.aws_template import GIVEN, ROOT, Template, Topology, breaches, output, read


def tables() -> dict[str, set[str]]:
    return {name: {type_of(event) for event in load(name).handlers} for name in SERVICES}


def topology() -> Topology:
    return Topology(read("template.yaml"), read("service.yaml"))


def test_the_template_agrees_with_the_code() -> None:
    assert breaches(topology(), tables()) == []


@pytest.mark.parametrize("service", SERVICES)
def test_an_event_type_added_to_a_handler_table_alone_is_found(service: str) -> None:
    grown = tables()
    grown[service].add("ORDER_CANCELLED")

    assert f"{service}: its queue does not get ['ORDER_CANCELLED']" in breaches(topology(), grown)


def test_a_service_added_to_the_code_alone_is_found() -> None:
    grown = tables() | {"returns": {"SHIPPED"}}

    assert "returns: its queue does not get ['SHIPPED']" in breaches(topology(), grown)


def function(template: Template, name: str) -> dict[str, Any]:
    properties = template["Resources"][f"{name}Function"]["Properties"]
    assert isinstance(properties, dict)
    return properties


def statement(around: Template, sid: str) -> dict[str, Any]:
    (policy,) = around["Resources"]["Role"]["Properties"]["Policies"]
    (found,) = (it for it in policy["PolicyDocument"]["Statement"] if it.get("Sid") == sid)
    assert isinstance(found, dict)
    return found


def parameters(template: Template, name: str) -> dict[str, Any]:
    given = template["Resources"][name]["Properties"]["Parameters"]
    assert isinstance(given, dict)
    return given


def more_types(template: Template, _: Template) -> None:
    parameters(template, "Shipment")["Types"] += ",SHIPPED"


def fewer_types(template: Template, _: Template) -> None:
    parameters(template, "Billing")["Types"] = "INVOICE_CREATED"


def another_handler(template: Template, _: Template) -> None:
    function(template, "Migrate")["Handler"] = "ops.aws_lambda.door"


def another_queue(template: Template, _: Template) -> None:
    mapping = function(template, "Email")["Events"]["Queue"]["Properties"]
    mapping["Queue"] = output("Order", "QueueArn")


def no_item_failures(template: Template, _: Template) -> None:
    del function(template, "Invoice")["Events"]["Queue"]["Properties"]["FunctionResponseTypes"]


def greedy_queue(template: Template, _: Template) -> None:
    function(template, "Order")["Events"]["Queue"]["Properties"]["ScalingConfig"]["MaximumConcurrency"] = 50


def another_role(template: Template, _: Template) -> None:
    function(template, "Order")["Role"]["Fn::GetAtt"] = "Billing.Outputs.RoleArn"


def no_schedule(template: Template, _: Template) -> None:
    del function(template, "Shipment")["Events"]["Leftovers"]


def longer_timeout(template: Template, _: Template) -> None:
    function(template, "Email")["Timeout"] = 120


def short_visibility(_: Template, around: Template) -> None:
    around["Mappings"]["VisibilityTimeout"]["60"]["Seconds"] = 300


def no_dead_letters(_: Template, around: Template) -> None:
    del around["Resources"]["Queue"]["Properties"]["RedrivePolicy"]


def no_alarm(_: Template, around: Template) -> None:
    del around["Resources"]["DeadLettersAlarm"]


def every_queue(_: Template, around: Template) -> None:
    statement(around, "ConsumeItsQueue")["Resource"] = "*"


def any_action(_: Template, around: Template) -> None:
    statement(around, "BuryWhatItCannotDecode")["Action"] = "sqs:*"


def a_foreign_secret(template: Template, _: Template) -> None:
    variables = function(template, "Email")["Environment"]["Variables"]
    variables["STRIPE_API_KEY_SECRET_ARN"] = {"Ref": "StripeSecretArn"}


def orders_without_authorizer(template: Template, _: Template) -> None:
    function(template, "Order")["Events"]["ReadOrder"]["Properties"]["Auth"] = {"Authorizer": "NONE"}


def no_authorizer(template: Template, _: Template) -> None:
    del template["Resources"]["Api"]["Properties"]["Auth"]["DefaultAuthorizer"]


def misspelt_output(template: Template, _: Template) -> None:
    function(template, "Order")["LoggingConfig"]["LogGroup"]["Fn::GetAtt"] = "Order.Outputs.Log"


def missing_parameter(template: Template, _: Template) -> None:
    del parameters(template, "Invoice")["Publishes"]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (more_types, "shipment: its queue gets ['SHIPPED'], which it does not handle"),
        (fewer_types, "billing: its queue does not get ['SHIPMENT_ERROR']"),
        (another_handler, "MigrateFunction: there is no ops.aws_lambda.door"),
        (another_queue, "email: its function does not take from its own queue alone"),
        (no_item_failures, "invoice: one failed message gives the whole batch back"),
        (greedy_queue, "order: its queue may take all of its concurrency, also what schedule and API need"),
        (another_role, "order: its function has the role of another"),
        (no_schedule, "shipment: nothing wakes it for what is left over"),
        (longer_timeout, "email: its stack believes in another timeout than its function has"),
        (short_visibility, "billing: a message comes back before its function can have ended"),
        (no_dead_letters, "what Queue cannot deliver goes nowhere"),
        (no_alarm, "no alarm on ApproximateNumberOfMessagesVisible of DeadLetterQueue.QueueName"),
        (every_queue, "a service's role allows sqs:ReceiveMessage on *"),
        (any_action, "a service's role allows sqs:* on {'Fn::GetAtt': 'DeadLetterQueue.Arn'}"),
        (
            a_foreign_secret,
            "email: STRIPE_API_KEY_SECRET_ARN names a secret that its role may not read",
        ),
        (orders_without_authorizer, "GET /orders/{order_id}: anybody may ask"),
        (no_authorizer, "$default: anybody may ask"),
        (misspelt_output, "there is no Order.Outputs.Log"),
        (missing_parameter, "invoice: service.yaml needs ['Publishes']"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_broken_template_is_reported(broken: Callable[[Template, Template], None], told: str) -> None:
    template, around = read("template.yaml"), read("service.yaml")
    broken(template, around)

    assert told in breaches(Topology(template, around), tables())


@pytest.mark.parametrize(("service", "api"), [("order", order_api), ("invoice", invoice_api)])
def test_the_gateway_has_a_route_for_every_route_of_the_service(service: str, api: Any) -> None:
    nothing: Any = None
    router: APIRouter = api.routes(nothing, nothing) if service == "order" else api.routes(nothing)
    told = {f"{method} {route.path}" for route in router.routes for method in route.methods}  # type: ignore[attr-defined]

    beside = {"GET /healthz", "GET /readyz", "$default"}
    assert {route for route, (of, _) in topology().routes().items() if of == service} - beside == told


@pytest.mark.parametrize("service", SERVICES)
def test_a_function_gets_only_settings_of_its_service(service: str) -> None:
    told = topology().functions()[service]["Environment"]["Variables"].keys()
    settings = load(service).settings
    assert isinstance(settings, type)
    assert issubclass(settings, BaseSettings)
    known = {name.upper() for name in settings.model_fields}

    assert {name.removesuffix("_SECRET_ARN") for name in told} - GIVEN - known <= {
        "DATABASE_PASSWORD", "PROVIDER_DATABASE_PASSWORD",  # they go into the address beside them
    }  # fmt: skip


def test_the_migration_gets_the_password_of_every_role() -> None:
    told = function(read("template.yaml"), "Migrate")["Environment"]["Variables"].keys()

    assert {f"{role.upper()}_DB_PASSWORD_SECRET_ARN" for role in ROLES} <= told


@pytest.mark.parametrize("service", SERVICES)
def test_only_services_that_announce_events_may_publish(service: str) -> None:
    modules = (ROOT / "services" / service).glob("*.py")
    announces = any(".emit(" in module.read_text(encoding="utf-8") for module in modules)

    assert topology().stacks()[service]["Publishes"] == ("yes" if announces else "no")
