#!/usr/bin/env bash
# Runs a program that docs/cuda/build.sh built, with the libraries that it fetched:
#
#   docs/cuda/run.sh glow train --device cuda
#   mpirun -n 4 docs/cuda/run.sh glow train --device cuda --data cifar-10/ --out runs/cifar
#
# Where there is no driver, a library that knows of no device stands in for it, so that the program starts and can say so.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
home=$root/target/cuda/toolkit/home
program=$root/target/cuda/release/${1:?which program?}
[[ -x $program ]] || { echo "$program is not there: docs/cuda/build.sh makes it" >&2; exit 1; }
shift
libraries=$home/lib
ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1' || libraries=$libraries:$home/lib/stubs
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$program" "$@"
