# shellcheck shell=bash
# Sourced by the checks beside it. Installs what they run with pip into target/ci-tools, once;
# after that nothing asks the network. Sets `tools`, and goes to the root of the repository.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

requirements=.ci/checks/requirements.txt
home=$PWD/target/ci-tools
tools=$home/bin

install_tools() {
    # Another check may have been faster while this one waited.
    if cmp -s "$requirements" "$home/installed.txt"; then return; fi
    echo "installing the tools of $requirements (about a minute, once)"
    python3 -m venv --clear "$home"
    "$tools/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    cp "$requirements" "$home/installed.txt"
}

if ! cmp -s "$requirements" "$home/installed.txt"; then
    mkdir -p target
    exec 9>target/ci-tools.lock
    # Not every system has flock; there the checks must run one after the other the first time.
    if command -v flock >/dev/null; then flock 9; fi
    install_tools
    exec 9>&-
fi
