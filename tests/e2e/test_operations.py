"""Operations: scaling, restarting, starting in any order, down and up; no accepted order is lost."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.shop import Json, Shop, an_order
from tests.e2e.stack import SERVICES, ComposeFailed, Stack, eventually

BATCH = 60
OWN_CONTAINERS = (*SERVICES, "reconcile")


def ship(shop: Shop, count: int) -> list[Json]:
    """Place orders eight at a time and follow them until all are shipped."""
    with ThreadPoolExecutor(8) as threads:
        placed = list(threads.map(shop.place, [an_order() for _ in range(count)]))
    finished = [shop.finished(order["id"]) for order in placed]
    assert {order["status"] for order in finished} == {"SHIPPED"}
    return finished


def serials(orders: list[Json]) -> list[int]:
    """The serial numbers of the orders' invoices, sorted."""
    return sorted(int(order["invoice"]["number"].split("-")[1]) for order in orders)


def upstreams(stack: Stack) -> set[str]:
    """The addresses to which the gateway sent the latest requests for orders."""
    lines = (line.partition("| ")[2] for line in stack.logs("gateway").splitlines())
    requests = [json.loads(line) for line in lines if line.startswith("{")]
    return {
        address.strip().removesuffix(":8000")
        for request in requests
        if request["path"].startswith("/orders")
        for address in request["upstream"].split(",")
    }


def test_services_do_not_run_as_root_and_can_not_write_to_their_image(stack: Stack) -> None:
    for container in stack.containers(*OWN_CONTAINERS):
        assert container["Config"]["User"] not in {"", "root", "0"}
        assert container["HostConfig"]["ReadonlyRootfs"]
    for service in OWN_CONTAINERS:
        assert stack.compose("exec", "-T", service, "id", "-u").strip() != "0"


def test_only_three_ports_are_published_and_only_on_the_loopback_interface(stack: Stack) -> None:
    published = {
        (container["Config"]["Labels"]["com.docker.compose.service"], port, binding["HostIp"])
        for container in stack.containers()
        for port, bindings in container["NetworkSettings"]["Ports"].items()
        for binding in bindings or ()
    }
    assert published == {
        ("gateway", "80/tcp", "127.0.0.1"),
        ("maildev", "1080/tcp", "127.0.0.1"),
        ("rabbitmq", "15672/tcp", "127.0.0.1"),
    }


def test_scaled_services_share_the_work_and_invoice_numbers_have_no_gap(stack: Stack, shop: Shop) -> None:
    stack.up("--no-recreate", "--scale", "billing=3", "--scale", "order=2")
    replicas = stack.addresses("order")
    assert len(replicas) == 2

    numbers = serials(ship(shop, BATCH))

    assert numbers == list(range(numbers[0], numbers[0] + BATCH))
    eventually(lambda: (ship(shop, 4), upstreams(stack))[1], replicas.issubset)


def test_the_gateway_finds_replicas_with_new_addresses(stack: Stack, shop: Shop) -> None:
    stack.up("--no-recreate", "--scale", "billing=3", "--scale", "order=2")
    before = stack.addresses("order")
    stack.compose("stop", "order", "billing")
    stack.up("--no-recreate", "--no-deps", "--scale", "shipment=3", "shipment")  # takes the freed addresses
    stack.up("--no-recreate", "--scale", "billing=3", "--scale", "order=2", "--scale", "shipment=3")
    after = stack.addresses("order")
    assert after != before

    ship(shop, 20)

    assert upstreams(stack) & (after - before)


def test_restarting_services_under_load_loses_no_accepted_order(stack: Stack, shop: Shop) -> None:
    with ThreadPoolExecutor(2) as threads:
        restart = threads.submit(stack.compose, "restart", "invoice", "billing", "shipment", "email")
        placed = [shop.place(an_order()) for _ in range(20)]
        restart.result()
    assert {shop.finished(order["id"])["status"] for order in placed} == {"SHIPPED"}
    stack.up("--no-recreate")


def test_services_exit_with_0_after_sigterm(stack: Stack) -> None:
    stack.compose("stop", *OWN_CONTAINERS)
    codes = {
        container["Name"]: container["State"]["ExitCode"] for container in stack.containers(*OWN_CONTAINERS)
    }
    stack.up("--no-recreate")
    assert set(codes.values()) == {0}, codes


def test_reconcile_resends_the_events_of_a_purged_queue(stack: Stack, shop: Shop) -> None:
    stack.compose("stop", "shipment")
    placed = shop.reached(shop.place(an_order())["id"], "PAYMENT_CONFIRMED")
    stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "purge_queue", "orderflow.shipment")
    stack.up("--no-recreate")
    assert shop.finished(placed["id"])["status"] == "SHIPPED"


def test_the_orderflow_command_runs_in_a_container_and_finds_no_breach(stack: Stack) -> None:
    def orderflow(*arguments: str) -> str:
        return stack.compose("run", "--rm", "-T", "orderflow", *arguments)

    assert "Nothing is dead." in orderflow("dead", "list")
    assert "No order is stuck." in orderflow("stuck")
    assert "Every promise is kept." in orderflow("audit")


def test_an_invalid_setting_and_a_missing_name_are_errors_without_a_traceback(stack: Stack) -> None:
    run = ("run", "--rm", "-T", "--no-deps")
    with pytest.raises(ComposeFailed, match=r"(?m)^LOG_LEVEL: Input should be 'DEBUG', ") as refusal:
        stack.compose(*run, "-e", "LOG_LEVEL=LOUD", "order")
    assert "Traceback" not in str(refusal.value)
    with pytest.raises(ComposeFailed, match=r"(?m)^Give your name for the record, with --as NAME"):
        stack.compose(*run, "orderflow", "dead", "discard", "--all", "--note", "noise")
    assert "Nothing was changed." in stack.compose(
        *run, "orderflow", "dead", "discard", "--all", "--note", "noise", "--as", "ana"
    )


def test_payments_go_through_the_stripe_compatible_server(stack: Stack, shop: Shop) -> None:
    settings = {
        "PAYMENT_PROVIDER": "stripe",
        "STRIPE_API_KEY": "sk_test_e2e",
        "STRIPE_BASE_URL": "http://stripe:12111",
        "COMPOSE_PROFILES": "stripe",
    }
    stack.up("stripe", "billing", settings=settings)
    placed = shop.place(an_order())
    assert shop.finished(placed["id"])["status"] == "SHIPPED"
    report = stack.compose("run", "--rm", "-T", "orderflow", "audit", settings=settings)
    assert "Every promise is kept." in report
    stack.compose("rm", "--stop", "--force", "stripe", settings=settings)
    stack.up("billing")


def test_accepted_orders_survive_down_and_up(stack: Stack, shop: Shop) -> None:
    shipped = ship(shop, 1)[0]
    stack.compose("stop", "billing")
    waiting = shop.reached(shop.place(an_order())["id"], "INVOICE_CREATED")

    stack.down()
    stack.up()

    assert shop.order(shipped["id"]) == shipped
    assert shop.finished(waiting["id"])["status"] == "SHIPPED"
    assert serials(ship(shop, 1))[0] == serials([waiting])[0] + 1


def test_services_wait_for_the_database_and_the_broker_in_any_order(stack: Stack, shop: Shop) -> None:
    stack.compose("stop", "postgres", "rabbitmq")
    stack.compose("restart", *SERVICES)
    assert eventually(lambda: ready(shop), {502, 503, 504}.__contains__)
    refused = shop.gateway.post("/orders", json=an_order())
    assert refused.status_code in {502, 503, 504}
    assert refused.headers["content-type"] == "application/problem+json"

    stack.compose("start", "postgres")
    eventually(lambda: ready(shop), (200).__eq__)
    placed = shop.place(an_order())  # without a broker, the event waits in the outbox
    stack.compose("start", "rabbitmq")

    assert shop.finished(placed["id"])["status"] == "SHIPPED"
    assert {container["RestartCount"] for container in stack.containers(*OWN_CONTAINERS)} == {0}


def ready(shop: Shop) -> int:
    """The status of the gateway's /readyz; 0 if it closes the connection."""
    try:
        return shop.gateway.get("/readyz").status_code
    except httpx.TransportError:
        return 0
