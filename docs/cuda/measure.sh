#!/usr/bin/env bash
# Everything that is to be known of the programs on this machine's GPU, in one command:
#
#   docs/cuda/measure.sh --data cifar-10-batches-bin --minutes 120 --out gpu
#
# builds them (docs/cuda/build.sh; its options after --), compares every layer, model and trainer with the CPU, times training
# and sampling of the paper-size models on both, trains glow-cifar10 for the given minutes where --data says what on, and
# leaves in --out: machine.txt, parity.txt, times.jsonl (a line for every measurement), glow/ (the run), bits.txt (its bits/dim; the paper
# has 3.35). What was left out is said at the end.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
data='' minutes=60 out=gpu
while (($#)); do
    case $1 in
        --data) data=$(realpath "${2:?--data: which folder?}"); shift 2 ;;
        --minutes) minutes=${2:?--minutes: how many?}; shift 2 ;;
        --out) out=${2:?--out: which folder?}; shift 2 ;;
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
time_both() {
    local name=$1 program=$2
    shift 2
    for device in cuda cpu; do
        echo "== $name on $device"
        if line=$(docs/cuda/run.sh "$program" "$@" --device "$device" | tail -n 1); then
            printf '{"what": "%s", "device": "%s", "command": "%s %s", "found": %s}\n' "$name" "$device" "$program" "$*" "$line" >>"$out/times.jsonl"
        else
            left_out+=("$name on $device: failed")
        fi
    done
}
: >"$out/times.jsonl"
time_both "Glow of the paper, 32x32" glow-bench --steps-per-level 32 --width 512 --batch 64 --train-steps 10
time_both "VideoFlow bair-quant" videoflow-bench --model bair-quant --batch 5 --train-steps 5
time_both "PointFlow of the paper, training" pointflow-bench --what bound
time_both "PointFlow of the paper, sampling" pointflow-bench --what paper-sampling
time_both "PointFlow by flow matching, training" pointflow-bench --what matching
time_both "WaveFlow, 64 channels" waveflow-bench --model waveflow-h16-c64 --seconds 2 --batch 8

if [[ $data ]]; then
    docs/cuda/run.sh glow train --data "$data" --model glow-cifar10 --device cuda --minutes "$minutes" --out "$out/glow"
    docs/cuda/run.sh glow eval --checkpoint "$out/glow" --data "$data" --device cuda | tee "$out/bits.txt"
else
    left_out+=("glow-cifar10: not trained; --data says on what")
fi
for what in "${left_out[@]}"; do echo "LEFT OUT $what"; done
echo "all else is in $out"
