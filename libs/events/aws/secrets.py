"""Secret settings: on AWS they are in Secrets Manager, and the environment has only their ARNs.

`<SETTING>_SECRET_ARN` names the secret whose value becomes `<SETTING>`: its text, or the member `password` of
a JSON object, as RDS and the template write it.
"""

from collections.abc import Mapping
from typing import Final

import boto3
import msgspec
from botocore.config import Config

SUFFIX: Final = "_SECRET_ARN"
_CONFIG: Final = Config(
    connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}
)


class _Credentials(msgspec.Struct):
    password: str


def resolve(environment: Mapping[str, str]) -> dict[str, str]:
    """Reads the settings that the environment names by ARN from Secrets Manager.

    Raises botocore's errors when a secret can't be read: a process does not start without its secrets.
    """
    places = {name.removesuffix(SUFFIX): arn for name, arn in environment.items() if name.endswith(SUFFIX)}
    if not places:
        return {}
    client = boto3.client("secretsmanager", config=_CONFIG)
    return {
        setting: _secret(client.get_secret_value(SecretId=arn)["SecretString"])
        for setting, arn in places.items()
    }


def _secret(text: str) -> str:
    try:
        return msgspec.json.decode(text, type=_Credentials).password
    except msgspec.DecodeError:
        return text.strip()
