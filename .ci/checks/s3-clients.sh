#!/usr/bin/env bash
# Clients that are not ours: boto3 reads what we wrote, and we what it wrote; curl uses our signed
# URLs, and is refused where it does not keep to them. On S3 and on the local file system.
# shellcheck source-path=SCRIPTDIR source=tools.sh
source "$(dirname "$0")/tools.sh"

# A home of its own: checkov wants another boto3.
boto3=1.44.8
client=$PWD/target/ci-boto3
if [ "$(cat "$client/installed.txt" 2>/dev/null)" != "$boto3" ]; then
    python3 -m venv --clear "$client"
    "$client/bin/pip" install --quiet --disable-pip-version-check "boto3==$boto3"
    echo "$boto3" >"$client/installed.txt"
fi

# What `cargo test --workspace` has built already.
cargo build --quiet --locked --workspace --bins --examples
timeout 120 "$client/bin/python" .ci/checks/s3_clients.py "$tools/buf"
echo "s3-clients: ok"
