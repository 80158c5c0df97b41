#!/usr/bin/env bash
# Everything that is to be known of the programs on this machine's GPU, in one command:
#
#   docs/cuda/measure.sh --data cifar-10-batches-bin --minutes 120 --python torch-venv/bin/python --out gpu
#
# builds them (docs/cuda/build.sh; its options after --), compares every layer, model and trainer with the CPU, times training
# and sampling of the paper-size models on both, and of the same models in PyTorch on the same GPU, eager and compiled, where --python says
# which Python has it (docs/cuda/torch), trains glow-cifar10 for the given minutes where --data says what on, and
# leaves in --out: machine.txt, parity.txt, times.jsonl (a line for every measurement), glow/ (the run), bits.txt (its bits/dim; the paper
# has 3.35). What was left out is said at the end.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
data='' minutes=60 out=gpu python=''
while (($#)); do
    case $1 in
        --data) data=$(realpath "${2:?--data: which folder?}"); shift 2 ;;
        --minutes) minutes=${2:?--minutes: how many?}; shift 2 ;;
        --out) out=${2:?--out: which folder?}; shift 2 ;;
        # The link is not resolved: it leads out of the virtual environment.
        --python) python=$(realpath -s "${2:?--python: which one, with torch?}"); shift 2 ;;
        --) shift; break ;;
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        *) echo "$1: not known; --help says what is" >&2; exit 2 ;;
    esac
done
command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null || { echo "no GPU that nvidia-smi sees" >&2; exit 1; }
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$root"
left_out=()

nvidia-smi >"$out/machine.txt"
lscpu >>"$out/machine.txt"
docs/cuda/build.sh "$@"

# Every comparison with the CPU is in a test named `device`; on a machine with a GPU none is skipped.
home=$root/target/cuda/toolkit/home
LD_LIBRARY_PATH=$home/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} FLOW_DEVICE=cuda \
    docs/cuda/build.sh "$@" -- test --release --workspace --test all device -- --nocapture 2>&1 | tee "$out/parity.txt" ||
    left_out+=("parity: tests failed, see parity.txt")
grep -q '^SKIPPED' "$out/parity.txt" && left_out+=("parity: tests were skipped, see parity.txt")

# A line for each measurement: ours on the GPU, and on this machine's CPU beside it.
time_on() {
    local device=$1 name=$2 program=$3
    shift 3
    echo "== $name on $device"
    if line=$(docs/cuda/run.sh "$program" "$@" --device "$device" | tail -n 1); then
        printf '{"what": "%s", "device": "%s", "command": "%s %s", "found": %s}\n' "$name" "$device" "$program" "$*" "$line" >>"$out/times.jsonl"
    else
        left_out+=("$name on $device: failed")
    fi
}
time_both() {
    time_on cuda "$@"
    time_on cpu "$@"
}
: >"$out/times.jsonl"
time_both "Glow of the paper, 32x32" glow-bench --steps-per-level 32 --width 512 --batch 64 --train-steps 10
time_on cuda "Glow of the paper, 32x32, convolutions in bf16" glow-bench --steps-per-level 32 --width 512 --batch 64 --train-steps 10 --convolutions bf16
time_both "VideoFlow bair-quant" videoflow-bench --model bair-quant --batch 5 --train-steps 5
time_both "PointFlow of the paper, training" pointflow-bench --what bound
time_both "PointFlow of the paper, sampling" pointflow-bench --what paper-sampling
time_both "PointFlow by flow matching, training" pointflow-bench --what matching
time_both "WaveFlow, 64 channels" waveflow-bench --model waveflow-h16-c64 --seconds 2 --batch 8

# The same models in plain PyTorch on the GPU, as they are and compiled.
time_torch() {
    local name=$1 script=$2
    shift 2
    for how in '' '--compile blocks'; do
        echo "== $name, PyTorch $how"
        # shellcheck disable=SC2086  # No word, or two.
        if line=$("$python" -B "docs/cuda/torch/$script.py" --device cuda "$@" $how | tail -n 1); then
            printf '{"what": "%s", "device": "cuda", "command": "%s", "found": %s}\n' "$name" "$script.py $*${how:+ $how}" "$line" >>"$out/times.jsonl"
        else
            left_out+=("$name, PyTorch $how: failed")
        fi
    done
}
if [[ $python ]]; then
    for script in glow videoflow pointflow waveflow; do
        "$python" -B "docs/cuda/torch/$script.py" --test >/dev/null || left_out+=("PyTorch $script: its test failed")
    done
    time_torch "Glow of the paper, 32x32" glow --steps-per-level 32 --width 512 --batch 64 --train-steps 10
    time_torch "VideoFlow bair-quant" videoflow --batch 5 --train-steps 10
    time_torch "PointFlow of the paper, training" pointflow --what bound
    time_torch "PointFlow of the paper, training, activations kept" pointflow --what bound --graph
    time_torch "PointFlow of the paper, sampling" pointflow --what paper-sampling
    time_torch "PointFlow by flow matching, training" pointflow --what matching
    time_torch "WaveFlow, 64 channels" waveflow --seconds 2 --batch 8 --train-steps 10
else
    left_out+=("PyTorch: not timed; --python says which Python has it")
fi

if [[ $data ]]; then
    docs/cuda/run.sh glow train --data "$data" --model glow-cifar10 --device cuda --minutes "$minutes" --out "$out/glow"
    docs/cuda/run.sh glow eval --checkpoint "$out/glow" --data "$data" --device cuda | tee "$out/bits.txt"
else
    left_out+=("glow-cifar10: not trained; --data says on what")
fi
for what in "${left_out[@]}"; do echo "LEFT OUT $what"; done
echo "all else is in $out"
