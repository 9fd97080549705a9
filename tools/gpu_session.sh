#!/usr/bin/env bash
# Runs the GPU checks on a machine with one GPU and no network, in ten minutes. `tools/gpu_session.sh --help` explains.
#
#   tools/gpu_session.sh pack            on a machine with network: downloads the wheels that the other machine lacks
#   tools/gpu_session.sh --out DIR       on the GPU machine: runs the checks, leaves results and a log in DIR
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python=${PYTHON:-$(command -v python3 || true)}
if [ -z "$python" ]; then
  echo "gpu_session: no python3 found; Python 3.11 or newer is needed. Set PYTHON to its path." >&2
  exit 2
fi
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m tools.gpu "$@"
