"""The gateway for tests: nginx with our template, in front of processes of the order service.

The test's name server replaces Docker's: it answers for `order` with the address of every replica.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, cast

import httpx

from tests.ports import free_port
from tests.servers import nginx_in_container
from tests.waiting import eventually

ROOT: Final = Path(__file__).resolve().parents[1]
TEMPLATE: Final = ROOT / "deploy" / "nginx" / "default.conf.template"
REPLICAS: Final = ("127.0.0.2", "127.0.0.3")
"""Addresses of the replicas, which all listen on one port, as in a network of containers."""


@dataclass
class Replica:
    """One process of the order service at an address. It runs until `end`."""

    address: str
    port: int
    database_url: str
    log: Path
    _process: Process | None = None

    async def start(self) -> None:
        """Starts the process. It may not serve yet."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOST": self.address,
            "PORT": str(self.port),
            "DATABASE_URL": self.database_url,
            "BROKER_URL": "amqp://nobody:nothing@127.0.0.1:1/",  # orders are accepted without a broker too
        }
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.order.main"),
                env=environment,
                cwd=ROOT,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def serves(self) -> None:
        """Returns when it is ready for orders."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:

            async def status() -> int | str:
                try:
                    answer = await client.get(f"http://{self.address}:{self.port}/readyz")
                except httpx.TransportError as error:
                    return repr(error)
                return answer.status_code

            await eventually(status, lambda found: found == 200)

    async def has_said(self, words: str) -> None:
        """Returns when these words are in its log."""

        async def said() -> str:
            return self.log.read_text(encoding="utf-8")

        await eventually(said, lambda found: words in found)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it if it runs; returns its exit status."""
        assert self._process
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()


@asynccontextmanager
async def replica(address: str, port: int, database_url: str, folder: Path) -> AsyncIterator[Replica]:
    """A process of the order service that is started, and ended at the end of the block."""
    order = Replica(address, port, database_url, folder / f"{address}.log")
    await order.start()
    try:
        yield order
    finally:
        await order.end()


class _Names(asyncio.DatagramProtocol):
    """Answers every question for an address (RFC 1035) with the same addresses."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = [IPv4Address(address).packed for address in addresses]
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport
        question = data[12 : data.index(0, 12) + 5]
        counts = b"\x00\x01" + len(self._addresses).to_bytes(2, "big") + bytes(4)
        head = data[:2] + b"\x81\x80" + counts
        record = b"\xc0\x0c" + b"\x00\x01\x00\x01" + bytes(4) + b"\x00\x04"  # the name, A, IN, no TTL
        answers = b"".join(record + address for address in self._addresses)
        self._transport.sendto(head + question + answers, addr)


@asynccontextmanager
async def gateway(order_port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway, with the order service at REPLICAS. Raises NoContainer."""
    loop = asyncio.get_running_loop()
    names, _ = await loop.create_datagram_endpoint(lambda: _Names(REPLICAS), ("127.0.0.1", 0))
    try:
        with _nginx(names.get_extra_info("sockname")[1], order_port) as port:
            origin = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=origin, trust_env=False, timeout=20) as client:

                async def runs() -> bool:
                    try:
                        return (await client.get("/healthz")).status_code == 200
                    except httpx.TransportError:
                        return False

                await eventually(runs, bool)
                yield client
    finally:
        names.close()


@contextmanager
def _nginx(names_port: int, order_port: int) -> Iterator[int]:
    port = free_port()
    site = TEMPLATE.read_text(encoding="utf-8")
    for of_the_network, of_the_test in (
        ("listen 80 ", f"listen 127.0.0.1:{port} "),
        ("resolver 127.0.0.11 valid=2s ", f"resolver 127.0.0.1:{names_port} valid=1h "),  # they stay the same
        ("order:8000;", f"order:{order_port};"),
        ("${GATEWAY_REQUESTS_PER_SECOND}", "2000"),
        ("${GATEWAY_BURST}", "4000"),
    ):
        assert of_the_network in site
        site = site.replace(of_the_network, of_the_test)
    with nginx_in_container(site):
        yield port
