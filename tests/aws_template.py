"""Reads the AWS template and compares it with the code."""

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "deploy" / "aws"
LEFTOVERS: Final = '{"orderflow": "leftovers"}'
GIVEN: Final = {"TOPIC_ARN", "QUEUE_URL", "DEAD_LETTER_QUEUE_URL"}
"""Variables that every service's function gets beside its own settings."""
EVERYWHERE: Final = {"AttachToTheVpc", "Trace", "DenyEc2ToItsCode"}
"""Statements about actions without resources, and the one that denies such rights."""

Template: TypeAlias = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms, as the long ones."""


def _long_form(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {name if name in {"Ref", "Condition"} else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _long_form)


def read(name: str) -> Template:
    """One of the two templates in the repository."""
    document = yaml.load((FOLDER / name).read_text(encoding="utf-8"), _Loader)
    assert isinstance(document, dict)
    return document


def output(of: str, name: str) -> dict[str, str]:
    """The template's reference to an output of a service's own stack."""
    return {"Fn::GetAtt": f"{of}.Outputs.{name}"}


class Topology:
    """The content of the two templates, by service."""

    def __init__(self, template: Template, around: Template) -> None:
        self.template = template
        self.around = around
        """service.yaml: the resources around each service's function."""

    def of_type(self, kind: str) -> dict[str, Any]:
        """The template's resources of a type, by their names."""
        resources = self.template["Resources"].items()
        return {name: resource["Properties"] for name, resource in resources if resource["Type"] == kind}

    def stacks(self) -> dict[str, dict[str, Any]]:
        """The parameters of each service's own stack, by service."""
        parameters = [stack["Parameters"] for stack in self.of_type("AWS::CloudFormation::Stack").values()]
        return {given["Service"]: given for given in parameters}

    def functions(self) -> dict[str, dict[str, Any]]:
        """Each service's function, by service."""
        functions = self.of_type("AWS::Serverless::Function")
        return {service: functions[f"{service.capitalize()}Function"] for service in self.stacks()}

    def filter_policies(self) -> dict[str, set[str]]:
        """The types that each service's queue gets."""
        subscription = self.around["Resources"]["Subscription"]["Properties"]
        assert subscription["FilterPolicy"] == {"type": {"Ref": "Types"}}
        return {service: set(given["Types"].split(",")) for service, given in self.stacks().items()}

    def routes(self) -> dict[str, tuple[str, bool]]:
        """Each route of the API: the function that answers it, and whether it has the authorizer."""
        api = self.template["Resources"]["Api"]["Properties"]
        guarded = api["Auth"].get("DefaultAuthorizer") == "AWS_IAM" and api["Auth"].get("EnableIamAuthorizer")
        routes = {}
        for service, function in self.functions().items():
            for event in function["Events"].values():
                if event["Type"] == "HttpApi":
                    given = event["Properties"]
                    route = f"{given['Method']} {given['Path']}" if "Path" in given else "$default"
                    routes[route] = (service, bool(guarded) and "Auth" not in given)
        return routes


def breaches(topology: Topology, tables: Mapping[str, set[str]]) -> list[str]:
    """The differences between the templates and the code, a sentence each.

    `tables` has the types of each service's handler table.
    """
    return [breach for check in CHECKS for breach in check(topology, tables)]


Tables: TypeAlias = Mapping[str, set[str]]


def filter_policies_are_the_handler_tables(topology: Topology, tables: Tables) -> Iterator[str]:
    """Every service's queue gets exactly the types in its handler table."""
    policies = topology.filter_policies()
    for service in sorted(policies.keys() | tables.keys()):
        missing = tables.get(service, set()) - policies.get(service, set())
        beyond = policies.get(service, set()) - tables.get(service, set())
        if missing:
            yield f"{service}: its queue does not get {sorted(missing)}"
        if beyond:
            yield f"{service}: its queue gets {sorted(beyond)}, which it does not handle"


def every_function_has_its_door(topology: Topology, _: Tables) -> Iterator[str]:
    """The handler of each function exists in a module of the project."""
    for name, function in topology.of_type("AWS::Serverless::Function").items():
        module, _dot, door = function["Handler"].rpartition(".")
        path = ROOT / (module.replace(".", "/") + ".py")
        if not path.exists() or door not in _names_of(path):
            yield f"{name}: there is no {function['Handler']}"


def _names_of(path: Path) -> set[str]:
    names = set()
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.FunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
    return names


def functions_take_from_their_own_queue(topology: Topology, _: Tables) -> Iterator[str]:
    """One mapping per function, from its own queue, which reports the items that failed."""
    for service, function in topology.functions().items():
        stack = service.capitalize()
        mappings = [event["Properties"] for event in function["Events"].values() if event["Type"] == "SQS"]
        if [mapping["Queue"] for mapping in mappings] != [output(stack, "QueueArn")]:
            yield f"{service}: its function does not take from its own queue alone"
        for mapping in mappings:
            if mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
                yield f"{service}: one failed message gives the whole batch back"
            if mapping["ScalingConfig"]["MaximumConcurrency"] >= function["ReservedConcurrentExecutions"]:
                yield f"{service}: its queue may take all of its concurrency, also what schedule and API need"
        if function["Role"] != output(stack, "RoleArn"):
            yield f"{service}: its function has the role of another"


def leftovers_are_scheduled(topology: Topology, _: Tables) -> Iterator[str]:
    """A schedule invokes every service's function for work that is left over."""
    for service, function in topology.functions().items():
        schedules = [event for event in function["Events"].values() if event["Type"] == "Schedule"]
        if [schedule["Properties"]["Input"] for schedule in schedules] != [LEFTOVERS]:
            yield f"{service}: nothing wakes it for what is left over"


def visibility_outlasts_the_function(topology: Topology, _: Tables) -> Iterator[str]:
    """A message stays hidden for at least six times the function's timeout."""
    seconds = topology.around["Mappings"]["VisibilityTimeout"]
    for service, given in topology.stacks().items():
        timeout = topology.functions()[service]["Timeout"]
        if given["FunctionTimeout"] != timeout:
            yield f"{service}: its stack believes in another timeout than its function has"
        if seconds[str(given["FunctionTimeout"])]["Seconds"] < 6 * timeout:
            yield f"{service}: a message comes back before its function can have ended"


def every_queue_has_dead_letters_and_alarms(topology: Topology, _: Tables) -> Iterator[str]:
    """A message received too often goes to the dead-letter queue, and both queues have alarms."""
    resources = topology.around["Resources"]
    dead = {"Fn::GetAtt": "DeadLetterQueue.Arn"}
    for name in ("Queue", "Subscription"):
        if resources[name]["Properties"].get("RedrivePolicy", {}).get("deadLetterTargetArn") != dead:
            yield f"what {name} cannot deliver goes nowhere"
    watched = {
        (dimension["Value"].get("Fn::GetAtt") or dimension["Value"]["Ref"], alarm["Properties"]["MetricName"])
        for alarm in resources.values()
        if alarm["Type"] == "AWS::CloudWatch::Alarm" and alarm["Properties"].get("AlarmActions")
        for dimension in alarm["Properties"].get("Dimensions", [])
    }
    for wanted in (
        ("Queue.QueueName", "ApproximateAgeOfOldestMessage"),
        ("DeadLetterQueue.QueueName", "ApproximateNumberOfMessagesVisible"),
        ("FunctionName", "Errors"),
        ("FunctionName", "Throttles"),
    ):
        if wanted not in watched:
            yield f"no alarm on {wanted[1]} of {wanted[0]}"


def functions_may_reach_their_own_alone(topology: Topology, _: Tables) -> Iterator[str]:
    """A service's role names its own queue, dead-letter queue, secrets and log, and the one topic."""
    own = {
        "sqs:ReceiveMessage": {"Fn::GetAtt": "Queue.Arn"},
        "sqs:DeleteMessage": {"Fn::GetAtt": "Queue.Arn"},
        "sqs:ChangeMessageVisibility": {"Fn::GetAtt": "Queue.Arn"},
        "sqs:GetQueueAttributes": {"Fn::GetAtt": "Queue.Arn"},
        "sqs:SendMessage": {"Fn::GetAtt": "DeadLetterQueue.Arn"},
        "sns:Publish": {"Ref": "Topic"},
        "logs:CreateLogStream": {"Fn::GetAtt": "LogGroup.Arn"},
        "logs:PutLogEvents": {"Fn::GetAtt": "LogGroup.Arn"},
    }
    (policy,) = topology.around["Resources"]["Role"]["Properties"]["Policies"]
    for written in policy["PolicyDocument"]["Statement"]:
        statement = written["Fn::If"][1] if "Fn::If" in written else written
        if statement["Sid"] in EVERYWHERE:
            continue
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        for action in actions:
            allowed = [own.get(action)]
            if action == "secretsmanager:GetSecretValue":
                allowed = [{"Ref": "DatabasePassword"}, {"Ref": "OtherSecrets"}]
            if statement["Resource"] not in allowed:
                yield f"a service's role allows {action} on {statement['Resource']}"


def secrets_are_readable(topology: Topology, _: Tables) -> Iterator[str]:
    """A function gets the names of its own password and of secrets that its role may read, and no others."""
    for service, function in topology.functions().items():
        readable = [output(service.capitalize(), "DatabasePasswordArn")]
        readable += _branches(topology.stacks()[service].get("OtherSecrets", ""))
        for name, value in function["Environment"]["Variables"].items():
            if name.endswith("_SECRET_ARN"):
                told = [branch for branch in _branches(value) if branch != {"Ref": "AWS::NoValue"}]
                if any(secret not in readable for secret in told):
                    yield f"{service}: {name} names a secret that its role may not read"


def _branches(value: Any) -> list[Any]:
    return value["Fn::If"][1:] if isinstance(value, dict) and "Fn::If" in value else [value]


def every_route_but_healthz_has_the_authorizer(topology: Topology, _: Tables) -> Iterator[str]:
    """Only /healthz answers without a signature."""
    for route, (_service, guarded) in topology.routes().items():
        if guarded == (route == "GET /healthz"):
            yield f"{route}: {'only a signature opens it' if guarded else 'anybody may ask'}"


def the_stacks_fit_together(topology: Topology, _: Tables) -> Iterator[str]:
    """Every output that the template reads exists, and every parameter that it gives or has to give."""
    parameters, outputs = topology.around["Parameters"], topology.around["Outputs"]
    needed = {name for name, parameter in parameters.items() if "Default" not in parameter}
    for service, given in topology.stacks().items():
        if given.keys() - parameters.keys():
            yield f"{service}: service.yaml knows no {sorted(given.keys() - parameters.keys())}"
        if needed - given.keys():
            yield f"{service}: service.yaml needs {sorted(needed - given.keys())}"
    for reference in _references(topology.template):
        stack, _dot, name = reference.partition(".Outputs.")
        if name and (name not in outputs or stack.lower() not in topology.stacks()):
            yield f"there is no {reference}"


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "Fn::GetAtt" and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


CHECKS: Final[tuple[Callable[[Topology, Tables], Iterator[str]], ...]] = (
    filter_policies_are_the_handler_tables,
    every_function_has_its_door,
    functions_take_from_their_own_queue,
    leftovers_are_scheduled,
    visibility_outlasts_the_function,
    every_queue_has_dead_letters_and_alarms,
    functions_may_reach_their_own_alone,
    secrets_are_readable,
    every_route_but_healthz_has_the_authorizer,
    the_stacks_fit_together,
)
