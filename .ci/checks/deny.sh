#!/usr/bin/env bash
# Licences, banned and doubled crates, and where crates come from: deny.toml.
# shellcheck source-path=SCRIPTDIR source=tools.sh
source "$(dirname "$0")/tools.sh"

# Crates for other systems are looked at too, and a build has not fetched those.
cargo fetch --locked --quiet
"$tools/cargo-deny" --offline --log-level error check --hide-inclusion-graph licenses bans sources
echo "deny: ok (not looked at: advisories, which need a database from the network)"
