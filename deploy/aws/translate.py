"""Translate the SAM template as CloudFormation would: `translate.py template.yaml` prints it as JSON.

Started with the Python of `.venv/sam`. It reaches no network: what only a deployment knows is made up (where
the package lies, the region), and none of AWS's managed policies is known, because the template uses none.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from cfnlint.decode import cfn_yaml
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator


def main(path: Path) -> int:
    """Print the translated template; or say what SAM would refuse, with exit status 1."""
    template: dict[str, Any] = json.loads(json.dumps(cfn_yaml.load(str(path))))
    template["Globals"]["Function"]["CodeUri"] = "s3://deployment/lambda.zip"
    try:
        translated = Translator({}, Parser()).translate(template, {})
    except InvalidDocumentException as refused:
        for cause in refused.causes:
            sys.stderr.write(f"{path}: {cause.message}\n")
        return 1
    sys.stdout.write(json.dumps(translated, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
