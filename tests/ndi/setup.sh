#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Fetches what the NDI tests need, the wheels ndi-python (which holds the NDI runtime) and numpy,
# into a folder, and prints the folder to use as NDI_RUNTIME_DIR_V6. Does nothing that is done.
#
#   tests/ndi/setup.sh [FOLDER]        FOLDER: .cache/ndi in the repository by default
#
# The runtime is proprietary: it is fetched for tests only, and neither committed nor shipped.
# Needs python3 with pip, and libavahi-client3 at run time. PYTHON names another interpreter.
set -eu

repository=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
folder=${1:-$repository/.cache/ndi}
python=${PYTHON:-python3}
wheels="ndi-python==6.3.2.6 numpy>=1.26,<3"

# Wheels are built for one version of Python, so that a change of it must fetch others.
version=$("$python" -c 'import sys; print(sys.implementation.cache_tag)')
stamp="$folder/.installed"
wanted="$version $wheels"

if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
    echo "Fetching $wheels for $version into $folder" >&2
    # Only what an earlier run of this script has made is cleared away.
    if [ -f "$stamp" ]; then rm -rf -- "$folder"; fi
    mkdir -p -- "$folder"
    # shellcheck disable=SC2086 # one argument a wheel
    "$python" -m pip install --quiet --disable-pip-version-check --no-compile \
        --root-user-action=ignore --target "$folder" $wheels >&2
    printf '%s\n' "$wanted" >"$stamp"
fi

if ! ls "$folder"/NDIlib/libndi.so.6 >/dev/null 2>&1; then
    echo "setup.sh: $folder/NDIlib holds no libndi.so.6: the wheel has changed its layout" >&2
    exit 1
fi
if ! PYTHONPATH="$folder" "$python" -c 'import NDIlib, numpy' >&2; then
    echo "setup.sh: the wheel does not load; install libavahi-client3 (and libavahi-common3)" >&2
    exit 1
fi
printf '%s\n' "$folder/NDIlib"
