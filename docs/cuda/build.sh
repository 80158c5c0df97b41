#!/usr/bin/env bash
# Builds the programs with CUDA on a machine that need not have CUDA, a driver or a GPU:
#
#   docs/cuda/build.sh                      every program, with cuDNN, NCCL and MPI, into target/cuda/release
#   docs/cuda/build.sh --features cuda      with these features of `examples` instead
#   docs/cuda/build.sh --capability 80      for Ampere (90, Hopper, unless told; 75 Turing, 86 RTX 30, 89 RTX 40, 100 Blackwell)
#   docs/cuda/build.sh --all-kernels        with Candle's kernels for quantised networks, which nothing here calls: a quarter
#                                           of an hour more
#   docs/cuda/build.sh -- test --no-run     another command of cargo than `build --release -p examples --bins`
#
# It takes NVIDIA's compiler and libraries from their Python packages (about 1.5 GB, kept in target/cuda/toolkit) and needs
# python3 with pip, unzip and a C compiler; MPI as in docs/ranks.md, for the feature mpi. Where CUDA is installed, `cargo build
# --release -p examples --features cuda` does without this script.
#
# To run what it built: docs/cuda/run.sh PROGRAM …
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"

features=cuda,cudnn,nccl,mpi
capability=90
all_kernels=false
command=(build --release -p examples --bins)
while (($#)); do
    case $1 in
        --features) features=${2:?--features: which?}; shift 2 ;;
        --capability) capability=${2:?--capability: which?}; shift 2 ;;
        --all-kernels) all_kernels=true; shift ;;
        --) shift; command=("$@"); break ;;
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        *) echo "$1: not known; --help says what is" >&2; exit 2 ;;
    esac
done
for tool in python3 unzip cc c++ cargo; do
    command -v "$tool" >/dev/null || { echo "$tool is missing" >&2; exit 1; }
done

toolkit=$root/target/cuda/toolkit
# One release of CUDA; cuDNN and NCCL in the versions whose interface cudarc binds.
packages=(
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-cccl==13.0.85
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-nvrtc==13.0.88 nvidia-cublas==13.0.2.14 nvidia-curand==10.4.0.35
)
[[ $features == *cudnn* ]] && packages+=(nvidia-cudnn-cu13==9.21.1.3)
[[ $features == *nccl* ]] && packages+=(nvidia-nccl-cu13==2.30.7)

# Fetches and unpacks what is not there yet.
mkdir -p "$toolkit"/{packages,unpacked}
for package in "${packages[@]}"; do
    mark=$toolkit/packages/$package
    if [[ ! -e $mark ]]; then
        echo "== $package"
        fetched=$(mktemp -d)
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$fetched" "$package"
        unzip -qo "$fetched"/*.whl -d "$toolkit/unpacked"
        rm -r "$fetched"
        touch "$mark"
    fi
done

# One folder of the usual shape, out of links.
home=$toolkit/home
mkdir -p "$home"/{bin,include,lib/stubs}
chmod -R u+x "$toolkit"/unpacked/nvidia/cu13/{bin,nvvm/bin}
for part in "$toolkit"/unpacked/nvidia/{cu13,cudnn,nccl}; do
    for folder in bin include lib nvvm; do
        [[ -d $part/$folder ]] && cp -rsf "$part/$folder" "$home/"
    done
done
for library in "$home"/lib/*.so.*; do
    ln -sf "$(basename "$library")" "${library%%.so*}.so"
done
ln -sfn lib "$home/lib64"

# The driver's library belongs to a driver. To link against, a library of its functions' names serves, each of which says
# that there is no device; where the program runs, the driver's own is found.
cargo fetch --quiet --locked
cudarc=$(cargo metadata --format-version 1 --locked --filter-platform x86_64-unknown-linux-gnu --features examples/cuda |
    python3 -c 'import json, os, sys; print(*(os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"] if p["name"] == "cudarc"))')
grep -rhoE 'fn cu[A-Z][A-Za-z0-9_]*' "$cudarc/src/driver/sys" | sort -u |
    sed -E 's/fn (.*)/int \1(void) { return 100; }/' >"$toolkit/driver.c"
cc -shared -fPIC -w -fno-builtin -Wl,-soname,libcuda.so.1 -o "$home/lib/stubs/libcuda.so" "$toolkit/driver.c"
ln -sf libcuda.so "$home/lib/stubs/libcuda.so.1"

# Candle's kernels for quantised networks take longer than everything else together. A compiler that leaves them out is enough:
# the linker never asks for them.
if ! $all_kernels; then
    cat >"$toolkit/nvcc" <<'NVCC'
#!/usr/bin/env bash
real=$(dirname "$0")/home/bin/nvcc
for word; do
    case ${word##*/} in
        mmq_*.cu | mmvq_*.cu | moe_*.cu) left_out=true ;;
    esac
done
[[ ${left_out:-} ]] || exec "$real" "$@"
while (($#)); do
    [[ $1 == -o ]] && output=$2
    shift
done
exec cc -c -fPIC -x c /dev/null -o "${output:?}"
NVCC
    chmod +x "$toolkit/nvcc"
    export NVCC=$toolkit/nvcc
fi

export CUDA_HOME=$home PATH=$home/bin:$PATH CUDA_COMPUTE_CAP=$capability
export LIBRARY_PATH=$home/lib:$home/lib/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}
started=$SECONDS
# Before the rest: what follows a `--` belongs to tests.
cargo "${command[0]}" --target-dir target/cuda --features "$features" "${command[@]:1}"
echo "== $((SECONDS - started)) s: cargo ${command[*]} --features $features, compute capability $capability"
