"""The tables of docs/configuration.md: every setting, its form and default, and who reads it where."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import typer
import yaml
from pydantic_settings import BaseSettings

from chassis.function import FunctionSettings
from chassis.settings import BrokerSettings
from ops.main import app
from ops.migrate import ROLES
from ops.services import SERVICES, load
from tests import aws_template
from tests.api_reference import form_of, without_null
from tests.pages import ROOT, Table, code

OF_THE_FORM: Final = {"HOST", "PORT", "BROKER_URL", "BROKER_PASSWORD"}
"""Settings of a service's own process, which has a web server and a broker's client."""
OF_THE_PARTS: Final = re.compile(r"DATABASE_(URL|PASSWORD)|[A-Z]+_DATABASE_(URL|PASSWORD)")
"""`make run` tells each service its address; DATABASE_URL is its owner's there."""


@cache
def classes() -> Mapping[str, type[BaseSettings]]:
    """The settings of every service, by its name."""
    found = {}
    for name in SERVICES:
        settings = load(name).settings
        assert isinstance(settings, type)
        assert issubclass(settings, BaseSettings)
        found[name] = settings
    return found


@cache
def schemas() -> Mapping[str, Mapping[str, Any]]:
    """Every setting of a service's process, as JSON schema."""
    every: tuple[type[BaseSettings], ...] = (*classes().values(), BrokerSettings)
    return {
        name.upper(): schema
        for settings in every
        for name, schema in settings.model_json_schema()["properties"].items()
    }


@cache
def example() -> Mapping[str, str]:
    """The settings of compose, with their defaults.

    A default is that of the compose file, or else the value that .env.example shows first.
    """
    shown = of_env_example()
    return shown | {name: default for name, default in of_the_compose_file().items() if name in shown}


def of_env_example() -> dict[str, str]:
    """The settings that .env.example shows, with the value that it shows first."""
    text = (ROOT / ".env.example").read_text("utf-8")
    return dict(reversed(re.findall(r"^#([A-Z0-9_]+)=(.*)$", text, re.MULTILINE)))


@cache
def of_the_compose_file() -> Mapping[str, str]:
    """The defaults that the compose file itself names."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    return dict(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+):-([^}]*)\}", text))


@cache
def environments() -> Mapping[str, Mapping[str, str | None]]:
    """What compose tells each container."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return {name: service.get("environment", {}) for name, service in compose["services"].items()}


@cache
def functions() -> Mapping[str, Mapping[str, Any]]:
    """What the AWS template tells each service's function."""
    template = aws_template.read("template.yaml")
    topology = aws_template.Topology(template, aws_template.read("service.yaml"))
    shared = template["Globals"]["Function"]["Environment"]["Variables"]
    return {
        name: shared | function["Environment"]["Variables"] for name, function in topology.functions().items()
    }


def of_commands() -> Mapping[str, set[str]]:
    """The environment variables that stand for options of `orderflow`, with those options."""
    found: dict[str, set[str]] = {}
    for command in commands(typer.main.get_command(app)):
        for parameter in command.params:
            if parameter.envvar:
                found.setdefault(str(parameter.envvar), set()).update(parameter.opts)
    return found


def commands(command: Any) -> Iterator[Any]:
    """A command and all below it."""
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from commands(below)


def default_of(name: str) -> str | None:
    """The default in the code, as it would stand in the environment."""
    default = schemas()[name].get("default")
    if isinstance(default, float):
        default = f"{default:g}"
    return None if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def read_by(name: str) -> str:
    """The services whose processes read a setting."""
    if name.lower() in BrokerSettings.model_fields:
        return "all"
    services = [service for service, settings in classes().items() if name.lower() in settings.model_fields]
    return "all" if len(services) == len(SERVICES) else ", ".join(services)


def in_compose(name: str) -> str:
    """How a setting is given in compose: by the environment or `.env`, or by the compose file itself."""
    if name in example():
        shown = example()[name]
        return "yes" if shown == (default_of(name) or "") else f"yes, default {code(shown)}"
    image = (ROOT / "Dockerfile").read_text("utf-8")
    given = any(name in environments()[service] for service in SERVICES)
    return "fixed" if given or re.search(rf"\b{name}=", image) else "-"


def in_one_process(name: str) -> str:
    """Whether `make run` reads a setting."""
    if name in ("PORT", "DATABASE_URL", "DATABASE_PASSWORD"):
        return "yes"
    return "-" if name in OF_THE_FORM or OF_THE_PARTS.fullmatch(name) else "yes"


def on_aws(name: str) -> str:
    """How a setting is given on AWS: by a parameter, as a secret, or by the template itself."""
    ways = set()
    for told in functions().values():
        if f"{name}_SECRET_ARN" in told:
            ways.add("secret")
        if name in told:
            value = told[name]
            if isinstance(value, dict) and value.keys() == {"Ref"}:
                ways.add(code(value["Ref"]))
            else:
                ways.add(code(value) if isinstance(value, str) else "fixed")
    return ", ".join(sorted(ways)) or "-"


def of_services() -> Table:
    """Every setting of a service's process."""
    rows = []
    for name in sorted(schemas()):
        schema, _ = without_null(schemas()[name])
        form = form_of({key: value for key, value in schema.items() if key not in ("default", "pattern")})
        default = default_of(name)
        rows.append(
            (
                code(name),
                form.removesuffix(", password").removesuffix(", path"),
                "-" if default is None else code(default),
                *(form_of_running(name) for form_of_running in (read_by, in_compose, in_one_process, on_aws)),
            )
        )
    header = ("setting", "form", "default", "services", "compose", "`make run`", "AWS")
    return Table(header, rows, "meaning")


def of_roles() -> Table:
    """The passwords of the database's roles."""
    rows = [(code(f"{role.upper()}_DB_PASSWORD"), code(role)) for role in ROLES]
    return Table(("setting", "default"), rows, "role")


def of_compose() -> Table:
    """What only compose reads."""
    known = {*schemas(), *(f"{role.upper()}_DB_PASSWORD" for role in ROLES), *of_commands()}
    rows = [
        (code(name), code(example()[name]) if example()[name] else "-")
        for name in sorted(example().keys() - known)
    ]
    return Table(("setting", "default"), rows, "meaning")


def of_the_command() -> Table:
    """What the `orderflow` command reads in place of an option."""
    rows = [(code(name), ", ".join(map(code, sorted(of)))) for name, of in sorted(of_commands().items())]
    return Table(("setting", "option"), rows, "meaning")


def of_functions() -> Table:
    """What only Lambda functions read."""
    own = {name.upper() for name in FunctionSettings.model_fields}
    told = {name.removesuffix("_SECRET_ARN") for told in functions().values() for name in told}
    rows = [
        (code(name), "yes" if name in own else "-") for name in sorted(told | own) if name not in schemas()
    ]
    return Table(("variable", "required"), rows, "meaning")


TABLES: Final[Mapping[str, Callable[[], Table]]] = {
    "services": of_services,
    "roles": of_roles,
    "compose": of_compose,
    "command": of_the_command,
    "functions": of_functions,
}
