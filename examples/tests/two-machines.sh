#!/usr/bin/env bash
# Two network namespaces as two machines that train together; then the wire between them is cut.
#
#   cargo build --release -p examples --features mpi
#   sudo examples/tests/two-machines.sh target/release/glow
#
# Needs root, ip (iproute2), unshare and Open MPI. Prints what was seen and leaves nothing behind.
set -euo pipefail

program=$(realpath "${1:?the program glow, built with --features mpi}")
folder=$(mktemp -d)
patience=5
one=flow-one two=flow-two

finish() {
    [ -n "${job:-}" ] && kill -KILL "$job" 2>/dev/null || true
    ip netns del $one 2>/dev/null || true
    ip netns del $two 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT

ip netns add $one
ip netns add $two
ip link add wire1 netns $one type veth peer name wire2 netns $two
for i in 1 2; do
    name=$([ $i = 1 ] && echo $one || echo $two)
    ip -n $name addr add 10.77.0.$i/24 dev wire$i
    ip -n $name link set wire$i up
    ip -n $name link set lo up
done
printf '10.77.0.1 slots=1\n10.77.0.2 slots=1\n' >"$folder/hosts"

# What Open MPI calls instead of ssh.
cat >"$folder/agent" <<AGENT
#!/usr/bin/env bash
host=\$1; shift
exec ip netns exec $two unshare --uts bash -c "hostname two; \$*"
AGENT
chmod +x "$folder/agent"

# A machine that does not answer is given up after seven seconds by Open MPI, after $patience by the ranks.
train() {
    local mca="--mca plm_rsh_agent $folder/agent --mca oob_tcp_keepalive_time 3 --mca oob_tcp_keepalive_intvl 2"
    mca="$mca --mca oob_tcp_keepalive_probes 2"
    cd "$folder"
    FLOW_RANKS_TIMEOUT=$patience RAYON_NUM_THREADS=1 exec ip netns exec $one unshare --uts bash -c \
        "hostname one; exec mpirun --allow-run-as-root --hostfile hosts -n 2 --map-by ppr:1:node --bind-to none $mca \
         -x FLOW_RANKS_TIMEOUT -x RAYON_NUM_THREADS $program train --out run $*"
}

tiny="--levels 1 --steps-per-level 1 --width 8 --batch-size 30 --test-images 20 --warmup 10"
(train $tiny --steps 100000 --checkpoint-every 20) >"$folder/log" 2>&1 &
job=$!
until ls "$folder"/run/checkpoints/step-* >/dev/null 2>&1; do
    kill -0 $job || { cat "$folder/log"; exit 1; }
    sleep 0.2
done
sleep 2
ip -n $one link set wire1 down
SECONDS=0
if wait $job; then
    echo "the job ended well although the wire was cut" >&2
    exit 1
fi
job=
echo "the job ended $SECONDS s after the wire was cut: $(grep -m1 '^error: rank' "$folder/log")"
ip -n $one link set wire1 up
# The daemon on the other side gives up a little later.
sleep 8
newest=$(ls "$folder/run/checkpoints" | grep step | tail -1)
steps=$((10#${newest#step-} + 20))
(train --resume --steps $steps) >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
echo "resumed from $newest: $(tail -1 "$folder/log")"
