#!/usr/bin/env bash
# The client that V0.2's applications have, @trpc/client, works against the gateway's HTTP edge.
# shellcheck source-path=SCRIPTDIR source=tools.sh
source "$(dirname "$0")/tools.sh"

if ! command -v npm >/dev/null; then
    echo "trpc: skipped, because there is no npm here to get the client with"
    exit 0
fi

trpc=11.25.2
client=$PWD/target/ci-trpc
if [ "$(cat "$client/installed.txt" 2>/dev/null)" != "$trpc" ]; then
    mkdir -p "$client"
    npm install --silent --no-save --prefix "$client" "@trpc/client@$trpc" "@trpc/server@$trpc"
    echo "$trpc" >"$client/installed.txt"
fi

# What `cargo test --workspace` has built already.
cargo build --quiet --locked --package synapctl
timeout 120 node .ci/checks/trpc.mjs "$client" "${CARGO_TARGET_DIR:-target}/debug/synapctl"
echo "trpc: ok"
