#!/bin/sh
# Lints the template, and its translation by SAM, without a network:  deploy/aws/lint.sh [FOLDER]
set -eu
cd "$(dirname "$0")/../.."
sh deploy/aws/environment.sh
sam=.venv/sam/bin
folder=${1:-deploy/aws}
translated=$(mktemp -d)
trap 'rm -rf "$translated"' EXIT

"$sam/cfn-lint" "$folder/template.yaml" "$folder/service.yaml"
cp "$folder/service.yaml" "$translated"
"$sam/python" deploy/aws/translate.py "$folder/template.yaml" >"$translated/template.json"
"$sam/cfn-lint" --ignore-checks W3002 -- "$translated/template.json" # W3002: a deployment uploads service.yaml
