"""The services: every package in `services` is one."""

import pkgutil
from importlib import import_module
from typing import Final

import services
from chassis.service import Service
from ops.errors import CommandFailed

SERVICES: Final = tuple(sorted(module.name for module in pkgutil.iter_modules(services.__path__)))
"""Their names, which are also the names of their schemas."""


def load(name: str) -> Service:
    """The service that `services.<name>.main` declares."""
    service = import_module(f"services.{name}.main").SERVICE
    assert isinstance(service, Service)
    return service


class NoSuchService(CommandFailed):
    """No service has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no service {name!r}; the services are {', '.join(SERVICES)}.")


def check_service(name: str) -> str:
    """Returns the name if a service has it. Raises NoSuchService."""
    if name not in SERVICES:
        raise NoSuchService(name)
    return name
