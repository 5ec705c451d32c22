#!/usr/bin/env bash
# test_ranks_resume.sh BUILD -- a run that ranks share is killed, as a whole or in part, and goes on
# with other numbers of ranks: it ends with the bytes of a run that was left alone.  KAC_KILLS is the
# number of kills, 10 unless set.
# shellcheck disable=SC2317 # holds calls functions
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

models=$work/models
mkdir "$models" "$work/log.worker"
"$build/tests/make_models" "$models" || exit 1
kills=${KAC_KILLS:-10}
RANDOM=20 # the same kills in every run, as far as the machine is the same

reward="reward: [{kind: table, file: $models/reward.safetensors}]"
toy smc "$reward" 'process: {steps: 600}' 'sampler: {groups: 16, particles: 32, alpha: 0.3}'
toy gibbs "$reward" 'process: {steps: 20}' \
    'sampler: {algorithm: particle_gibbs, groups: 8, particles: 16, alpha: 0.3}' 'driver: {sweeps: 30}'
toy graphs "reward: [{kind: quadratic, file: $models/graph_reward.safetensors}]" \
    'process: {kind: graph, steps: 300, snr: 0.2, langevin: batch}' \
    'sampler: {groups: 1, particles: 30, children: 2, alpha: 0.5, select: {group: {trigger: {kind: every}}}}'
sed -i 's/denoiser/graphs/' "$work/graphs.yaml"
toy worker "reward: [{kind: worker, command: [$build/tests/worker, $work/log.worker, good, '1']}]" \
    'process: {steps: 300}' 'sampler: {groups: 8, particles: 8, alpha: 0.3, reuse: off}'

begin 'MPI is here'
if ! has_mpi "$build"; then
    skip 'there is no mpirun, or the build has no libkac_mpi.so'
    begin 'ranks of a resumed run'
    run "$kac" resume "$work" --ranks sockets
    expect 2
    says '--ranks sockets: want auto, self or mpi'
    finish
fi

# shared RANKS COMMAND...: kac in the background, on so many ranks; alone where it is one.
shared() {
    local ranks=$1
    shift
    if [ "$ranks" -eq 1 ]; then
        start "$@" --ranks self
    else
        launch mpirun -n "$ranks" "$kac" "$@" --ranks mpi
    fi
}
children() { # PID: those it has started
    cat "/proc/$1/task/$1/children" 2>/dev/null
}
# some WORD...: one of them, drawn.
some() {
    if [ $# -gt 0 ]; then echo "${@:RANDOM % $# + 1:1}"; fi
}
# equal FOLDER FOLDER: the same results, but for what was lost, and nothing beside them.
equal() {
    local lost='failures|seconds'
    holds "$2 holds what $1 does" test "$(ls "$work/$1")" = "$(ls "$work/$2")"
    holds 'samples.csv is the same' cmp "$work/$1/samples.csv" "$work/$2/samples.csv"
    holds 'the trace is the same' cmp <(steady "$work/$1") <(steady "$work/$2")
    holds 'so are the numbers of run.json' cmp <(numbers "$work/$1" "$lost") <(numbers "$work/$2" "$lost")
    clean
}

# ---- kills ----------------------------------------------------------------------------------

# moves FOLDER: a checkpoint later than $latest.
moves() {
    test "$(newest "$1")" != "$latest"
}

# strike: sends its signal; $pid is the launcher, or the run itself where it is alone.
strike() {
    local ranks=() workers='' rank
    read -ra ranks <<<"$(children "$pid")"
    case $how in
    rank) kill -KILL "$(some "${ranks[@]:-$pid}")" ;;
    launcher) kill -KILL "$pid" ;;
    stop) kill -TERM "$pid" ;;
    stop_rank) kill -TERM "$(some "${ranks[@]:-$pid}")" ;;
    worker)
        for rank in "$pid" "${ranks[@]}"; do workers+=" $(pgrep -P "$rank" -f log.worker)"; done
        # shellcheck disable=SC2086 # words
        kill -KILL "$(some $workers)"
        ;;
    esac 2>/dev/null
}

kinds=(smc gibbs worker graphs)
ways=(rank launcher stop rank stop_rank)
hit=0
for ((k = 0; k < ${#kinds[@]}; k++)); do
    kind=${kinds[k]}
    begin "$kind, killed and resumed"
    run "$kac" run "$work/$kind.yaml" --out "$work/$kind.whole" --quiet
    expect 0
    # nearly always killed while it writes
    pace=(--set checkpoint.seconds=0.01 --quiet)
    latest=''
    shared $((RANDOM % 4 + 1)) run "$work/$kind.yaml" --out "$work/$kind.cut" "${pace[@]}"
    for ((i = k; i < kills; i += ${#kinds[@]})); do
        await moves "$work/$kind.cut"
        sleep 0.0$((RANDOM % 10))
        how=${ways[i % ${#ways[@]}]}
        if [ "$kind" = worker ] && [ $((i % 2)) -eq 0 ]; then how=worker; fi
        if strike; then hit=$((hit + 1)); fi
        if [ "$how" = worker ]; then kill -KILL "$pid" 2>/dev/null; fi # later, it takes another
        ended
        holds 'no process is left' soon none_of "$work/(log|$kind)"
        latest=$(newest "$work/$kind.cut")
        next=$((RANDOM % 4 + 1))
        if [ -f "$work/$kind.cut/run.json" ]; then # it was complete: again
            rm -rf "$work"/.*.partial-*            # signal 9 leaves what was being removed
            equal "$kind.whole" "$kind.cut"
            rm -rf "$work/$kind.cut"
            latest=''
            shared $next run "$work/$kind.yaml" --out "$work/$kind.cut" "${pace[@]}"
        else
            shared $next resume "$work/$kind.cut" "${pace[@]}"
        fi
    done
    ended
    expect 0
    equal "$kind.whole" "$kind.cut"
done
begin 'kills that met a run'
holds "half of them did, not $hit" test $((2 * hit)) -ge "$kills"

# ---- signals --------------------------------------------------------------------------------

# Runs of seconds on any machine, so that there is time to stop them.
slow="reward: [{kind: worker, command: [$build/tests/worker, $work/log.worker, slow, '5']}]"
toy long "$slow" 'process: {steps: 600}' 'sampler: {groups: 4, particles: 4, alpha: 0.3, reuse: off}'

begin 'SIGUSR1 to the launcher and to a rank leaves a checkpoint, and SIGTERM one more'
shared 3 run "$work/long.yaml" --out "$work/cut"
await grep -q '^kac: step' "$work/err"
kill -USR1 "$pid"
await has_checkpoints "$work/cut" 1
first=$(newest "$work/cut") latest=$first
read -ra ranks <<<"$(children "$pid")"
kill -USR1 "${ranks[2]}"
await moves "$work/cut"
kill -TERM "${ranks[1]}"
ended
expect 3
says 'stopped at step'
says "kac resume $work/cut goes on"
holds 'one rank complains' test "$(grep -c '^kac: stopped' "$work/err")" -eq 1
holds 'nothing is left' soon none_of "$work/(log|cut)"
holds 'they are later' test "$(newest "$work/cut")" '>' "$first"
cp -r "$work/cut" "$work/kept"

begin 'two at once'
shared 2 resume "$work/cut" --set checkpoint.seconds=0.01 --quiet
other=$pid latest=$(newest "$work/cut")
await moves "$work/cut"
run "$kac" resume "$work/cut" --ranks self
expect 2
says "$work/cut: another kac is at work on this run"
run mpirun -n 2 "$kac" resume "$work/cut" --ranks mpi
expect 2
holds 'one rank complains' test "$(grep -c '^kac: ' "$work/err")" -eq 1
run "$kac" run "$work/long.yaml" --out "$work/cut" --force --ranks self
expect 2
says 'another kac is at work'
kill -TERM "$other"
pid=$other
ended
holds 'nothing is left' soon none_of "$work/(log|cut)"

begin 'a checkpoint that is damaged: all ranks take the one before'
rm -rf "$work/cut"
cp -r "$work/kept" "$work/cut"
damage "$(newest "$work/cut")"
shared 3 resume "$work/cut" --set checkpoint.seconds=0.01
latest=$(newest "$work/cut")
await moves "$work/cut"
kill -TERM "$pid"
ended
says 'damaged'
holds 'nothing is left' soon none_of "$work/(log|cut)"
for run in kept cut; do
    run "$kac" resume "$work/$run" --ranks self --quiet --set checkpoint.seconds=600
    expect 0
done
holds 'the samples are the same' cmp "$work/kept/samples.csv" "$work/cut/samples.csv"

begin 'a run that is complete, on ranks'
run mpirun -n 2 "$kac" resume "$work/kept" --ranks mpi
expect 0
says 'is complete'

begin 'more ranks than particles'
toy few "$slow" 'process: {steps: 600}' 'sampler: {groups: 1, particles: 2, alpha: 0.3, reuse: off}'
shared 2 run "$work/few.yaml" --out "$work/few" --set checkpoint.seconds=0.01 --quiet
await has_checkpoints "$work/few" 1
kill -KILL "$pid"
ended
holds 'nothing is left' soon none_of "$work/(log|few)"
run mpirun -n 3 "$kac" resume "$work/few" --ranks mpi
expect 2
says 'of 2 particles where there are fewest'
holds 'one rank complains' test "$(grep -c '^kac: ' "$work/err")" -eq 1

begin 'a full disk: the run goes on without checkpoints'
large=(--quiet --set output.trace=off --set sampler.groups=64 --set process.steps=200
    --set sampler.final.kind=categorical --set sampler.final.keep=1)
run "$kac" run "$work/smc.yaml" --out "$work/full.whole" "${large[@]}"
# shellcheck disable=SC2016
run env OMPI_MCA_btl=tcp,self mpirun -n 2 bash -c 'ulimit -f 60; exec "$@"' - "$kac" run \
    "$work/smc.yaml" --ranks mpi --out "$work/full" "${large[@]}" --set checkpoint.seconds=0.01
expect 0
says 'cannot write'
holds 'samples.csv is the same' cmp "$work/full.whole/samples.csv" "$work/full/samples.csv"

finish
