"""Translate the SAM template as CloudFormation does: `translate.py template.yaml` prints it as JSON.

Run it with the Python of `.venv/sam`. It needs no network: the package's address and the region are
placeholders, and AWS's managed policies are left out, because the template uses none.
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
    """Print the translated template, or SAM's errors; return the exit status."""
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
