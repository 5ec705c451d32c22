#!/usr/bin/env bash
# test_ranks.sh BUILD -- one run on several ranks of MPI: the same bytes for any number of them and
# of threads; an error of one, and one that dies or hangs, ends all, and nothing is left over.
# shellcheck source=tests/lib.sh disable=SC2016 # dollars are awk's
. "$(dirname "$0")/lib.sh"

models=$work/models
mkdir "$models" "$work/place"
"$build/tests/make_models" "$models" || exit 1
mpi=''
if has_mpi "$build"; then mpi=1; fi

# A working configuration of a toy, after which arguments come.
cat >"$work/toy.yaml" <<END
model: {file: $models/denoiser.safetensors}
process: {steps: 12}
reward: [{kind: table, file: $models/reward.safetensors}]
sampler: {groups: 11, particles: 6, alpha: 0.5}
seed: 5
END
small=(--set process.steps=8 --set sampler.groups=9)

# shared RANKS OUT ARGUMENT...: kac run on so many ranks.
shared() {
    local ranks=$1 out=$2
    shift 2
    run mpirun -n "$ranks" "$kac" run "$@" --ranks mpi --out "$out" --quiet
}
# invariant NAME ARGUMENT...: a run alone, and on ranks with threads, $teams of them.
teams='1:1 2:2 3:1 4:2 8:1'
invariant() {
    local name=$1 ranks threads each
    shift
    begin "$name: one process"
    run "$kac" run "$@" --out "$work/$name" --quiet
    expect 0
    for each in $teams; do
        ranks=${each%:*} threads=${each#*:}
        begin "$name: $ranks ranks of $threads threads"
        if [ -z "$mpi" ]; then
            skip 'there is no mpirun, or the build has no libkac_mpi.so'
            continue
        fi
        shared "$ranks" "$work/$name.$ranks" "$@" --set device.threads="$threads"
        expect 0
        for file in samples.csv samples.fasta; do
            if [ -e "$work/$name/$file" ]; then
                holds "$file is the same" cmp "$work/$name/$file" "$work/$name.$ranks/$file"
            fi
        done
        holds 'the trace is the same' cmp <(steady "$work/$name") <(steady "$work/$name.$ranks")
        holds 'so are the numbers of run.json' \
            cmp <(numbers "$work/$name" threads) <(numbers "$work/$name.$ranks" threads)
        holds 'run.json says how many' grep -q "\"ranks\": $ranks," "$work/$name.$ranks/run.json"
    done
}

# ---- without MPI ----------------------------------------------------------------------------

begin 'a kind of ranks that there is not'
run "$kac" run "$work/toy.yaml" --ranks sockets --out "$work/place/run"
expect 2
says '--ranks sockets: want auto, self or mpi'

begin 'MPI is asked for, and libkac_mpi.so is not there'
mkdir "$work/bare"
cp "$kac" "$work/bare"
run "$work/bare/kac" run "$work/toy.yaml" --ranks mpi --out "$work/place/run"
expect 3
says 'no libkac_mpi.so'

begin 'a sweep is not shared'
run env PMI_SIZE=4 "$kac" sweep "$work/toy.yaml" --vary seed=1,2 --out "$work/place/sweep"
expect 2
says 'ranks share one run, not a sweep'
holds 'nothing is left over' test -z "$(ls -A "$work/place")"

# ---- the same bytes -------------------------------------------------------------------------

invariant smc "$work/toy.yaml" --set output.likelihood=on
invariant smc_plain "$work/toy.yaml" --set sampler.reuse=off
invariant svdd configs/promoter_svdd.yaml "${small[@]}" --set sampler.particles=1
invariant nested configs/promoter_nested.yaml "${small[@]}" --set sampler.particles=4
invariant gaussian configs/gmm_smc.yaml "${small[@]}" --set sampler.particles=12
cat >"$work/graphs.yaml" <<END
model: {file: $models/graphs.safetensors}
process: {kind: graph, steps: 8, snr: 0.2, langevin: batch}
reward: [{kind: quadratic, file: $models/graph_reward.safetensors}]
sampler: {groups: 9, particles: 4, children: 2, alpha: 0.5, select: {group: {trigger: {kind: every}}}}
seed: 5
END
invariant graphs "$work/graphs.yaml"
invariant pareto configs/promoter_pareto.yaml "${small[@]}" --set sampler.particles=4

# fewer groups than ranks
teams='3:2 8:1'
every=(--set sampler.select.group.trigger.kind=every)
invariant one_group "$work/toy.yaml" --set sampler.groups=1 --set sampler.particles=50 --set output.likelihood=on
invariant one_group_plain "$work/toy.yaml" "${every[@]}" --set sampler.groups=2 --set sampler.particles=21 --set sampler.reuse=off
teams=4:2
invariant one_set "$work/toy.yaml" "${every[@]}" --set sampler.select.group.scope=global --set sampler.select.group.scheme=residual \
    --set sampler.children=3 --set sampler.select.parent.rule=categorical
invariant one_nested configs/promoter_nested.yaml "${small[@]}" --set sampler.groups=1 --set sampler.particles=9
invariant one_svdd configs/promoter_svdd.yaml "${small[@]}" --set sampler.groups=2 --set sampler.particles=5
invariant one_vector configs/gmm_smc.yaml "${small[@]}" --set sampler.groups=1 --set sampler.particles=40
invariant one_graph "$work/graphs.yaml" --set sampler.groups=1 --set sampler.particles=10
invariant one_twisted "$work/toy.yaml" --set sampler.algorithm=tds --set sampler.groups=1 --set sampler.particles=30 \
    --set sampler.temper.kind=ess

if [ -z "$mpi" ]; then finish; fi

begin 'what travels is counted'
holds 'in run.json' grep -q '"states_sent": [1-9]' "$work/one_group_plain.8/run.json"
holds 'little more than must' test "$(sed -n 's/^ *"states_sent": \([0-9]*\).*/\1/p' "$work/one_group.8/run.json")" -le \
    "$((2 * $(sed -n 's/^ *"states_least": \([0-9]*\).*/\1/p' "$work/one_group.8/run.json")))"

begin 'without reuse, evaluations are the same too'
holds 'in every line' cmp <(sed -E 's/"seconds":[^,}]*//' "$work/smc_plain/trace.jsonl") \
    <(sed -E 's/"seconds":[^,}]*//' "$work/smc_plain.4/trace.jsonl")

# ---- what is refused ------------------------------------------------------------------------

# refused CODE: one complaint, neither the output nor its hidden sibling.
refused() {
    expect "$1"
    holds 'nothing is left over' test -z "$(ls -A "$work/place")"
    holds 'one rank complains' test "$(grep '^kac: ' "$work/err" | grep -cvE '^kac: (    |try it: )')" -eq 1
    rm -rf "$work/place"
    mkdir "$work/place"
}

begin 'fewer particles than ranks'
shared 4 "$work/place/run" "$work/toy.yaml" --set sampler.groups=1 --set sampler.particles=3
says 'of 3 particles where there are fewest'
refused 2

begin 'a driver with fewer groups than ranks'
shared 2 "$work/place/run" "$work/toy.yaml" --set sampler.algorithm=particle_gibbs --set sampler.groups=1
says 'spans ranks only with driver.kind none'
refused 2

begin 'trajectories of several ranks'
shared 2 "$work/place/run" "$work/toy.yaml" --record "$work/place/paths"
says 'trajectories: a run that ranks share keeps none'
refused 2

begin 'a mistake in the configuration is told once'
shared 3 "$work/place/run" "$work/toy.yaml" --set sampler.alpha=-1
says 'sampler.alpha'
refused 2

begin 'an output that exists'
shared 2 "$work/smc" "$work/toy.yaml"
says 'exists; choose another --out'
refused 2

begin 'a launcher that starts processes which MPI knows nothing of'
run env SLURM_STEP_NUM_TASKS=3 "$kac" run "$work/toy.yaml" --out "$work/place/run"
says 'the launcher has started 3, and MPI knows of 1'
refused 2

# ---- one of them fails ----------------------------------------------------------------------

begin 'a worker that fails on one rank'
cat >"$work/worker.sh" <<'END'
[ "$OMPI_COMM_WORLD_RANK" = 1 ] && exit 9
while read -r count; do
    for ((i = 0; i < count; i++)); do
        read -r object
        echo ${#object}
    done
done
END
sed "s|^reward:.*|reward: [{kind: worker, name: r, command: [bash, $work/worker.sh]}]|" \
    "$work/toy.yaml" >"$work/worker.yaml"
shared 3 "$work/place/run" "$work/worker.yaml"
says 'kac: rank 1: '
refused 3

begin 'and one that does not'
sed -i '/exit 9/d' "$work/worker.sh"
run "$kac" run "$work/worker.yaml" --set sampler.reuse=off --out "$work/worked" --quiet
shared 3 "$work/worked.3" "$work/worker.yaml" --set sampler.reuse=off
expect 0
holds 'the samples are the same' cmp "$work/worked/samples.csv" "$work/worked.3/samples.csv"
holds 'those of all ranks are counted' test \
    "$(sed -n 's/^ *"answered": //p' "$work/worked.3/run.json")" = "$(sed -n 's/^ *"answered": //p' "$work/worked/run.json")"

begin 'a number that is none, where ranks share a group'
sed -i "s/echo \${#object}/case \$object in CA* | BBC) echo nan ;; *) echo 1 ;; esac/" "$work/worker.sh"
unlucky=("${every[@]}" --set seed=7 --set sampler.groups=1 --set sampler.particles=16)
run "$kac" run "$work/worker.yaml" "${unlucky[@]}" --out "$work/place/run"
says 'step 3, slot 1: '
refused 2
shared 3 "$work/place/run" "$work/worker.yaml" "${unlucky[@]}"
says 'step 3, slot 1: '
refused 2

# ---- one of them is lost --------------------------------------------------------------------

# pid_of RANK: of the job whose mpirun is $job.
pid_of() {
    local pid children
    read -ra children <"/proc/$job/task/$job/children"
    for pid in "${children[@]}"; do
        if tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$1"; then
            echo "$pid"
        fi
    done
}
# hit SIGNAL RANK: a long job of three, one of which gets a signal once it is at work; $pids, $code.
hit() {
    local i pid=''
    "${start[@]}" >"$work/out" 2>"$work/err" &
    job=$!
    for ((i = 0; i < 2400; i++)); do
        if grep -q 'step [1-9]' "$work/err"; then break; fi
        sleep 0.05
    done
    mapfile -t pids < <(for rank in 0 1 2; do pid_of $rank; done)
    pid=$(pid_of "$2")
    kill "-$1" "$pid"
    code=0
    wait "$job" || code=$?
}
start=(mpirun -n 3 "$kac" run "$work/toy.yaml" --set process.steps=1000000 --set job.patience=4
    --set checkpoint.seconds=off
    --out "$work/place/run")

begin 'a rank that is killed'
hit KILL 1
holds 'the launcher says that it failed' test "$code" -ne 0
says 'process rank 1'
gone "${pids[@]}"
holds 'nothing is left over' test -z "$(ls -A "$work/place")"

begin 'a rank that hangs'
hit STOP 2
expect 3
# on a machine that is busy others may be too slow to say that they wait
holds 'it is named' grep -qE '^kac: ranks? ([01], )*2 ha(s|ve) not answered for 4 s' "$work/err"
gone "${pids[@]}"
holds 'nothing is left over' test -z "$(ls -A "$work/place")"

begin 'rank 0 hangs'
hit STOP 0
expect 3
holds 'it is named' grep -qE '^kac: ranks? 0(, [12])* ha(s|ve) not answered for 4 s' "$work/err"
gone "${pids[@]}"

begin 'a rank is told to stop'
rm -rf "$work/place"
mkdir "$work/place"
hit TERM 1
expect 3
gone "${pids[@]}"
holds 'nothing is left over' test -z "$(ls -A "$work/place")"

finish
