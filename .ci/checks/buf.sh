#!/usr/bin/env bash
# The protos keep buf's STANDARD rules, and everything in them has a comment.
# shellcheck source-path=SCRIPTDIR source=tools.sh
source "$(dirname "$0")/tools.sh"

(cd proto && "$tools/buf" lint)
echo "buf: ok"
