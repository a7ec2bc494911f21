"""The tables of docs/api.md: routes, fields, statuses and codes, as OpenAPI and the code have them."""

import ast
import asyncio
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_args, get_type_hints

import httpx
import msgspec

from chassis.application import application
from chassis.service import OpenService
from events import journey
from events.contracts import type_of
from ops.services import SERVICES, load
from services.order import documents
from tests.pages import ROOT, Table, code

NO_DATABASE: Any = None
"""Describing an API asks no database."""
LONGEST_PATTERN: Final = 60
"""A longer one tells a reader nothing; its field is described in words."""
ADDRESS: Final = {"database_url": "postgresql://nobody@localhost/none"}


# OpenAPI


@cache
def openapi() -> dict[str, Any]:
    """The OpenAPI document of every service's API, as `make run` serves it."""

    async def described() -> dict[str, Any]:
        async with AsyncExitStack() as stack:
            running = []
            for name in SERVICES:
                if (ROOT / "services" / name / "api.py").exists():
                    service = load(name)
                    own = service.assemble(service.settings(**ADDRESS), NO_DATABASE)
                    router = (await stack.enter_async_context(own)).router
                    running.append(
                        OpenService(participant=NO_DATABASE, transactions=NO_DATABASE, router=router)
                    )
            transport = httpx.ASGITransport(application(running))
            async with httpx.AsyncClient(transport=transport, base_url="http://orderflow") as client:
                document: dict[str, Any] = (await client.get("/openapi.json")).json()
                return document

    return asyncio.run(described())


def routes() -> Table:
    """Every route; those for health last."""
    rows = [
        (code(f"{method.upper()} {path}"), ", ".join(sorted(operation["responses"].keys() - {"default"})))
        for path, operations in openapi()["paths"].items()
        for method, operation in operations.items()
    ]
    rows.sort(key=lambda row: ("z" in row[0], row[0].partition("/")[2]))
    return Table(("route", "status"), rows, "what it does")


def request_fields() -> Table:
    """What POST /orders takes."""
    body = openapi()["paths"]["/orders"]["post"]["requestBody"]
    rows = [
        (code(path), "yes" if required else "no", form)
        for path, required, form in fields(body["content"]["application/json"]["schema"])
    ]
    return Table(("field", "required", "form"), rows, "meaning")


def answer_fields(path: str, method: str, status: str) -> Callable[[], Table]:
    """What a route answers."""

    def table() -> Table:
        answer = openapi()["paths"][path][method]["responses"][status]["content"]
        [content] = answer.values()
        rows = [(code(path), re.sub(r", `\^.*\$`", "", form)) for path, _, form in fields(content["schema"])]
        return Table(("field", "form"), rows, "meaning")

    return table


def fields(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, bool, str]]:
    """Path, whether it is required, and form of every field in a schema: `items[].sku`."""
    for name, found in schema_of(schema).get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        member, nullable = without_null(found)
        form = form_of(member) + (" or null" if nullable else "")
        yield here, name in schema_of(schema).get("required", ()), form
        inner = schema_of(member)
        if inner.get("type") == "array":
            yield from fields(inner["items"], f"{here}[]")
        else:
            yield from fields(inner, here)


def schema_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a reference names, or the schema itself."""
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def without_null(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The schema without the choice of null, and whether null may stand in its place."""
    choices = schema.get("anyOf", [schema])
    members = [each for each in choices if each.get("type") != "null"]
    return members[0] if len(members) == 1 else {"anyOf": members}, len(members) < len(choices)


def form_of(schema: Mapping[str, Any]) -> str:
    """Type and bounds of a field, in words."""
    found = schema_of(schema)
    if "anyOf" in found:
        return ", or ".join(map(form_of, found["anyOf"]))
    words = [found["type"]]
    bounds = {
        ("minLength", "maxLength"): "{} to {} characters",
        ("minItems", "maxItems"): "{} to {} of them",
        ("minimum", "maximum"): "{:.0f} to {:.0f}",
        ("minProperties", "maxProperties"): "{} to {} pairs",
    }
    for (least, most), bound in bounds.items():
        if most in found:
            words.append(bound.format(found.get(least, 0), found[most]))
    if "format" in found:
        words.append(found["format"])
    if "enum" in found and len(found["enum"]) <= 10:
        words.append(" ".join(map(code, found["enum"])))
    elif "enum" in found:
        words.append(f"one of {len(found['enum'])}")
    elif len(found.get("pattern", "")) in range(1, LONGEST_PATTERN):
        words.append(code(found["pattern"]))
    if "default" in found and found["default"] != []:
        words.append(f"default {code(found['default'])}")
    return ", ".join(words)


# Codes, found where the code makes them


def problems() -> Table:
    """Every problem of a type of its own."""
    found = {
        (argument(call, 1, "code"), argument(call, 0, "status"), argument(call, 2, "detail"))
        for call in calls("Problem", "libs/chassis", "services")
    }
    details: dict[tuple[str, str], list[str]] = {}
    for name, status, detail in sorted(found):
        details.setdefault((name, status), []).append(detail)
    rows = [(code(name), status, " ".join(said)) for (name, status), said in details.items()]
    return Table(("code", "status", "detail"), sorted(rows, key=lambda row: row[1:]), "what to do")


def faults() -> Table:
    """Every code that an entry of `errors` may have."""
    found: dict[str, set[str]] = {}
    [dictionary] = dictionaries("string_too_short", "libs/chassis")
    for pair in dictionary.values():
        found.setdefault(pair[0], set()).add(re.sub(r"\{\w+\}", "…", pair[1]))
    for name, places in {"BrokenRule": (1, 2), "PydanticCustomError": (0, 1)}.items():
        for call in calls(name, "services/order"):
            code_of, said = (argument(call, place, "") for place in places)
            found.setdefault(code_of, set()).add(said)
    return Table(("code", "detail"), [(code(name), " ".join(sorted(found[name]))) for name in sorted(found)])


def refusals() -> Table:
    """Why a payment or a shipment was refused for good."""
    [sentences] = dictionaries("insufficient_funds", "services/billing")
    rows = [(code(name), "payment", said) for name, said in sorted(sentences.items())]
    rows += [
        (code(argument(call, 0, "code")), "shipment", argument(call, 1, "message"))
        for call in calls("Refused", "services/shipment")
    ]
    return Table(("code", "stage", "message"), rows)


def delays() -> Table:
    """Why an order waits."""
    rows = [
        (code(argument(call, 0, "code")), argument(call, 1, "message"))
        for call in calls("Cause", "libs/events")
        if "…" not in argument(call, 0, "code")
    ]
    return Table(("code", "message"), [(name, re.sub(r"\{\w+\}", "…", said)) for name, said in rows])


def statuses() -> Table:
    """Every status of an order, by rank, and what its line of the timeline says."""
    rows = []
    for event in journey.MILESTONES:
        status = type_of(event)
        [data] = get_args(vars(event)["__orig_bases__"][0])
        news = [name for name in NEWS if name in data.__struct_fields__][:1]
        details = [
            code(field.name)
            for name in news
            for field in msgspec.structs.fields(get_type_hints(data)[name])
            if field.name != documents.NOT_IN_DETAIL
        ]
        rows.append((code(status), "yes" if status in journey.ENDS else "no", ", ".join(details) or "-"))
    return Table(("status", "final", "`detail` of its line"), rows, "meaning")


NEWS: Final = ("refund", "shipment", "reason", "payment", "invoice")
"""What a line of the timeline details: the first of these that its event knows."""


def gateway_errors() -> Table:
    """What the gateway answers by itself."""
    text = (ROOT / "deploy" / "nginx" / "default.conf.template").read_text("utf-8")

    def mapped(name: str) -> dict[str, str]:
        [block] = re.findall(rf"map \$status \${name} \{{(.*?)\n\}}", text, re.DOTALL)
        return dict(re.findall(r'^\s+(\d+)\s+"?(.*?)"?;$', block, re.MULTILINE))

    details, pauses = mapped("problem_detail"), mapped("problem_retry_after")
    rows = [(status, said, pauses.get(status, "-")) for status, said in sorted(details.items())]
    return Table(("status", "detail", "`Retry-After`"), rows)


Call = tuple[ast.Call, ast.AST, ModuleType]
"""A call, the function or module that it stands in, and its module."""


def calls(name: str, *folders: str) -> Iterator[Call]:
    """Every call of this name in these folders."""
    for path in sources(*folders):
        module = module_of(path)
        tree = ast.parse(path.read_text("utf-8"))
        scopes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and called(node) == name:
                around = [each for each in scopes if any(inner is node for inner in ast.walk(each))]
                yield node, around[-1] if around else tree, module


def called(call: ast.Call) -> str:
    """The name of what is called, without where it comes from."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def argument(call: Call, place: int, name: str) -> str:
    """An argument of a call as text; `…` stands for what is known only when it runs."""
    node, scope, module = call
    given = (
        node.args[place] if place < len(node.args) else next(k.value for k in node.keywords if k.arg == name)
    )
    if isinstance(given, ast.Name):
        assigned = [
            each
            for each in ast.walk(scope)
            if isinstance(each, ast.Assign) and each.lineno < node.lineno
            if any(isinstance(target, ast.Name) and target.id == given.id for target in each.targets)
        ]
        given = max(assigned, key=lambda each: each.lineno).value if assigned else given
    return text_of(given, module)


def text_of(node: ast.expr, module: ModuleType) -> str:
    """An expression as text; `…` stands for what is known only when it runs."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, module) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        node = ast.JoinedStr([node])
    try:
        return str(eval(compile(ast.fix_missing_locations(ast.Expression(node)), "", "eval"), vars(module)))
    except NameError:
        return "…"


def dictionaries(key: str, folder: str) -> Iterator[dict[str, Any]]:
    """The dictionaries with this key among the constants of a folder's modules."""
    for path in sources(folder):
        if key in path.read_text("utf-8"):
            for value in vars(module_of(path)).values():
                if isinstance(value, dict) and key in value:
                    yield value


def sources(*folders: str) -> Iterator[Path]:
    """The modules in these folders."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "versions" not in path.parts and path.name not in ("env.py", "aws_lambda.py"):
                yield path


def module_of(path: Path) -> ModuleType:
    """The module of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return importlib.import_module(".".join(parts[1:] if parts[0] == "libs" else parts))


TABLES: Final[Mapping[str, Callable[[], Table]]] = {
    "routes": routes,
    "request": request_fields,
    "order": answer_fields("/orders/{order_id}", "get", "200"),
    "invoice": answer_fields("/invoices/{number}", "get", "200"),
    "health": answer_fields("/readyz", "get", "200"),
    "problem": answer_fields("/orders", "post", "default"),
    "statuses": statuses,
    "problems": problems,
    "faults": faults,
    "refusals": refusals,
    "delays": delays,
    "gateway": gateway_errors,
}
