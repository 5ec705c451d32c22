#!/usr/bin/env bash
# test_emu.sh BUILD -- the CUDA backend without a GPU: its kernels on the emulator of tests/emu, in
# BUILD/emu, against the CPU's, byte by byte.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

emu=$build/emu
[ -x "$emu/kac" ] || { echo "$emu/kac is not there: make programs first" >&2; exit 2; }

# ---- every kernel against its twin and against plain arithmetic ------------------------------

unit() { # TITLE FILTER
    begin "$1"
    run tests/run-unit "$emu" "$2"
    expect 0
    holds 'tests ran' grep -qE '^unit: [1-9][0-9]* passed, 0 failed' "$work/out"
}
# What runs quickly on the emulator; `laws` and the like need thousands of groups, and what counts
# thousands of draws does so on the CPU, whose bits the twins ask for.
unit 'operations' '@(backend|masked|gaussian|graph|gdss|states|weigh|survive|completions|schemes|parent_stage|group_stage|revive|networks|cnn1d|vjp|filters|verify_graph)/!(*_gives_shares|*_are_independent|*draws_*|weights_made_of_values)'
unit 'twins' 'twins*/*'
unit 'runs of graphs' 'graph_laws/devices*'
unit 'the host waits only where it reads' 'invariance/steps_are_queued*'
unit 'a run goes on with another device' 'checkpoint/another_device'

# ---- recordings of the published networks and sampler of graphs -------------------------------

weights=../shared/data/gdss/gdss_zinc250k.safetensors
originals='scores steps schedule'
if [ -n "${ALL:-}" ]; then originals+=' traj'; fi # 8,000 moves
for what in $originals; do
    begin "the original's $what"
    recording=../shared/data/gdss_golden/zinc250k_$what.safetensors
    if [ ! -f "$weights" ] || [ ! -f "$recording" ]; then
        skip '../shared/data is absent'
        continue
    fi
    run env KAC_EMU_GUARD=1 KAC_DEVICE=cuda:0 "$emu/kac" verify "$weights" "$recording"
    expect 0
    holds 'it agrees' grep -q 'agrees with the recording' "$work/out"
done

# ---- mistakes that the emulator reports ------------------------------------------------------

for mistake in divergent_barrier lost_lane foreign_lane deadlock missing_barrier shared_not_allowed grid_too_high; do
    begin "the emulator reports: $mistake"
    run "$emu/tests/mistakes" "$mistake"
    holds 'the program ends badly' test "$code" -ne 0
    holds 'and says where' grep -qE 'emulator:|wrong' "$work/err"
done
begin 'and says nothing of sound kernels'
run "$emu/tests/mistakes" none
expect 0

# ---- whole runs: the same bytes, and no host access to device memory ---------------------------

tiny=(--set process.steps=5 --set sampler.groups=2)
twin() { # NAME ARGUMENT...
    local name=$1
    shift
    run env KAC_EMU_GUARD=1 "$emu/kac" run "$@" "${tiny[@]}" --set device.name=cuda:0 --out "$work/$name-cuda" --quiet
    expect 0
    run "$kac" run "$@" "${tiny[@]}" --set device.name=cpu --out "$work/$name-cpu" --quiet
    expect 0
    holds 'the samples are the same' cmp "$work/$name-cpu/samples.csv" "$work/$name-cuda/samples.csv"
    for side in cpu cuda; do
        sed 's/"seconds":[^,}]*//' "$work/$name-$side/trace.jsonl" >"$work/$name-$side/trace"
    done
    holds 'the traces are the same' cmp "$work/$name-cpu/trace" "$work/$name-cuda/trace"
}
for config in configs/*.yaml; do
    name=$(basename "$config" .yaml)
    case $name in
    tis_smc | gb1_smc | utr5_svdd | zinc_* | qm9_*) continue ;; # their models are the user's; test_runs.sh converts them
    promoter_worker) command -v python3 >/dev/null || continue ;;
    esac
    begin "$config on the emulator"
    few=()
    case $name in
    promoter_dts | promoter_mcts) few=(--set search.rollouts=8) ;;
    promoter_revive) few=(--set sampler.revive.levels=2 --set reward.2.at_most=0.45) ;;
    promoter_infill) few=(--set sampler.particles=6 --set sampler.pilot.particles=256) ;;
    promoter_svdd_r_replace) few=(--set sampler.particles=6 --set sampler.final.keep=6) ;;
    esac
    twin "$name" "$config" "${few[@]}"
done

begin 'a product of vectors with children, a twist and evaluations made again, on the emulator'
twin product configs/gmm_product.yaml --set sampler.children=3 --set sampler.select.parent.rule=categorical \
    --set sampler.twist.kind=posterior_mean --set reward.0.kind=quadratic \
    --set reward.0.file=models/gmm_measurement.safetensors --set device.cache=0 --set device.batch=50

"$build/tests/make_models" "$work" || exit 1
tiny[1]=process.steps=6 # correctors and predictors take turns
graphs=(--set process.kind=graph --set process.snr=0.2 --set sampler.particles=9 --set sampler.children=2
    --set sampler.alpha=0.5 --set sampler.select.group.trigger.kind=every)
cat >"$work/graphs.yaml" <<EOF
model: {file: $work/graphs.safetensors}
reward: [{kind: quadratic, file: $work/graph_reward.safetensors}]
EOF
for norms in particle batch; do
    begin "graphs with the norms of each $norms, on the emulator"
    twin "graphs-$norms" "$work/graphs.yaml" "${graphs[@]}" --set process.langevin=$norms
done
begin 'graphs by S4 from the state, on the emulator'
twin graphs-s4 "$work/graphs.yaml" "${graphs[@]}" --set process.predictor=s4 --set sampler.value.kind=state

# ---- precision ---------------------------------------------------------------------------------

for precision in tf32 bf16; do
    begin "$precision: the same bytes for any batch"
    for batch in 3 16; do
        run "$emu/kac" run configs/promoter_svdd.yaml --set process.steps=2 --set sampler.groups=2 \
            --set device.name=cuda:0 --set device.precision=$precision --set device.batch=$batch --out "$work/$precision-$batch" --quiet
        expect 0
    done
    holds 'the samples are the same' cmp "$work/$precision-3/samples.csv" "$work/$precision-16/samples.csv"
done

finish
