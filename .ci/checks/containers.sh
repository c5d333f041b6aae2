#!/usr/bin/env bash
# The Dockerfile is sound, the compose file fits its schema, and both name this version.
# shellcheck source-path=SCRIPTDIR source=tools.sh
source "$(dirname "$0")/tools.sh"

"$tools/hadolint" deploy/Dockerfile
"$tools/check-jsonschema" --builtin-schema vendor.compose-spec deploy/compose.yaml

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
other=$(grep -nE 'newTag:|SYNAP_VERSION:-' deploy/compose.yaml deploy/kubernetes/*/kustomization.yaml \
    deploy/kubernetes/*/*/kustomization.yaml |
    grep -vE "(newTag: |SYNAP_VERSION:-)${version//./\\.}(\}|$)" || true)
if [ -n "$other" ]; then
    printf 'not the version %s of Cargo.toml:\n%s\n' "$version" "$other" >&2
    exit 1
fi
echo "containers: ok"
