#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Builds .venv from requirements.lock; does nothing when nothing changed. Needs Python 3.11 to 3.13 and no root.
#
# Where packages come from is the machine's own pip configuration; what they are is fixed by the hashes in the lock.
# Only wheels, because an sdist runs its own code at installation, and a bare machine has no compiler. The one exception
# ships no wheel; it is pure Python, and it is built by the lock's own setuptools, not by one that pip would fetch unchecked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
state=$root/.bulkhead
stamp=.venv/.setup-stamp
unset PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# One line each: the checkout's place (scripts in .venv name it), the lock, the project's metadata.
wanted() { printf '%s\n' "$root"; sha256sum requirements.lock pyproject.toml | cut -d' ' -f1; }
line() { sed -n "${1}p" "$stamp" 2>/dev/null || true; }
done_already() { [ "$(cat "$stamp" 2>/dev/null)" = "$(wanted)" ] && .venv/bin/python -c '' 2>/dev/null; }

find_python() {
    local name
    for name in python3.13 python3.12 python3.11 python3 python; do
        if "$name" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    fail "no Python from 3.11 to 3.13 on PATH (on Debian 12: apt-get install python3)"
}

# Debian splits ensurepip off into python3-venv. Then pip comes as Debian's own signed wheel, unpacked into our folder.
pip_wheel() {
    local python=$1 folder=$state/cache/pip
    if unpacked "$folder/root"; then return; fi
    say "this Python has no ensurepip: fetching Debian's python3-pip-whl into $folder"
    "$python" -B - "$folder" >&2 <<'PYTHON' || fail "no pip to be had: install python3-venv, or start from a Python that has pip"
import platform, sys
from pathlib import Path
from devnet.debian import PrivateApt
folder = Path(sys.argv[1])
apt = PrivateApt(folder / "apt", [platform.freedesktop_os_release()["VERSION_CODENAME"]])
apt.update()
name = "python3-pip-whl"
apt.unpack(apt.closure(name), folder / "root", lambda package: package.name == name)
PYTHON
    unpacked "$folder/root" || fail "no pip in what was unpacked below $folder/root"
}
unpacked() { find "$1" -name 'pip-*.whl' -print -quit 2>/dev/null | grep .; }

make_venv() {
    local python wheel
    python=$(find_python)
    say "$("$python" --version) at $python"
    if "$python" -c 'import ensurepip; ensurepip.version()' 2>/dev/null; then
        "$python" -m venv .venv
    else
        wheel=$(pip_wheel "$python") # before there is a .venv: one without pip would be taken for whole
        "$python" -m venv --without-pip .venv
        printf '%s\n' "$wheel" >.venv/.pip-wheel
    fi
}

pip() {
    if .venv/bin/python -c 'import pip' 2>/dev/null; then
        .venv/bin/python -m pip --disable-pip-version-check "$@"
    else
        .venv/bin/python "$(cat .venv/.pip-wheel)/pip" --disable-pip-version-check "$@"
    fi
}

pip_locked() { pip install --require-hashes --no-deps --no-input "$@"; }
locked() { awk -v wanted="^$1==" '/^[A-Za-z0-9]/ { keep = $0 ~ wanted } keep' requirements.lock; }

install_lock() {
    local sdist=embit total
    total=$(grep -c '^[A-Za-z0-9]' requirements.lock)
    say "installing $total packages, each checked against its hash in requirements.lock (about a minute)"
    pip_locked --quiet --only-binary :all: --requirement <(locked setuptools)
    pip_locked --quiet --no-build-isolation --requirement <(locked "$sdist")
    pip_locked --only-binary :all: --progress-bar off --requirement requirements.lock |
        awk -v total="$total" '
            /^(Collecting|Processing|Requirement already satisfied)/ { if (++n % 28 == 0) print "setup: " n " of " total " fetched" >"/dev/stderr" }
            /^Installing collected/ { print "setup: unpacking" >"/dev/stderr" }'
    # What an older lock brought and this one does not name would hide a missing dependency.
    .venv/bin/python - <<'PYTHON' >.venv/.left-over
import re
from importlib.metadata import distributions
from pathlib import Path
spelled = lambda name: re.sub(r"[-_.]+", "-", name).lower()
locked = {spelled(m) for m in re.findall(r"^([A-Za-z0-9][\w.-]*)==", Path("requirements.lock").read_text(), re.M)}
print(*sorted({spelled(d.name) for d in distributions()} - locked - {"bulkhead", "pip", "setuptools"}), sep="\n")
PYTHON
    if grep -q . .venv/.left-over; then
        say "removing what the lock does not name: $(tr '\n' ' ' <.venv/.left-over)"
        pip uninstall --quiet --yes --requirement .venv/.left-over
    fi
}

done_already && exit 0
mkdir -p "$state"
exec 9>"$state/setup.lock"
flock 9 # two makes at once: the second waits, then finds it done
done_already && exit 0

began=$SECONDS
if [ -e .venv ] && ! .venv/bin/python -c '' 2>/dev/null; then
    say "the Python of .venv is gone: building it anew"
    rm -rf .venv
elif [ -f "$stamp" ] && [ "$(line 1)" != "$root" ]; then
    say "the checkout has moved: building .venv anew"
    rm -rf .venv
fi
[ -e .venv ] || make_venv
[ -f "$stamp" ] && [ "$(line 2)" = "$(wanted | sed -n 2p)" ] || { rm -f "$stamp"; install_lock; }
rm -f "$stamp"
pip install --quiet --no-deps --no-build-isolation --no-input --editable .
wanted >"$stamp.new"
mv "$stamp.new" "$stamp" # last, so that a setup that was cut off is taken up again
say "ready in $((SECONDS - began)) s"
