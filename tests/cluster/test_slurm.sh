#!/usr/bin/env bash
# test_slurm.sh BUILD -- the job files of docker/slurm on a private Slurm cluster of two nodes, both
# played by this machine: one node, two nodes, an array; a run that is told to stop, or must make
# room, is queued again and ends with the bytes of one that was left alone.
# shellcheck source=tests/lib.sh disable=SC2317 # holds calls functions
. "$(dirname "$0")/../lib.sh"

begin 'a cluster of two nodes'
for program in slurmctld slurmd munged sbatch; do
    command -v $program >/dev/null || leave "there is no $program; tools/install-deps cluster installs it"
done
run tests/cluster/slurm up "$work/slurm"
expect 0
[ "$code" -eq 0 ] || finish
trap 'tests/cluster/slurm down "$work/slurm"; rm -rf "$work"' EXIT
export SLURM_CONF=$work/slurm/slurm.conf PATH=$build:$PATH
# two nodes that are one machine
export OMPI_MCA_btl=tcp,self PMIX_MCA_psec=native
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 # MPI's own

models=$work/models
mkdir "$models"
"$build/tests/make_models" "$models" || exit 1
# config NAME STEPS: a toy.
config() {
    cat >"$work/$1.yaml" <<END
model: {file: $models/denoiser.safetensors}
process: {steps: $2}
reward: [{kind: table, file: $models/reward.safetensors}]
sampler: {groups: 32, particles: 64, alpha: 0.3}
END
}
config short 12
config long 4000
# The same values by a table, and by a worker that sleeps for 70 seconds in all.
config brisk 700
sed -i 's|kind: table|name: value, &|; s|groups: 32, particles: 64|groups: 4, particles: 4, reuse: off|' "$work/brisk.yaml"
mkdir "$work/asked"
sed "s|kind: table.*|kind: worker, command: [$build/tests/worker, $work/asked, slow, '100']}]|" "$work/brisk.yaml" >"$work/slow.yaml"

# submit ARGUMENT...: sbatch, as $job, whose log is $work/log.
submit() {
    rm -f "$work/log"
    run sbatch --parsable --chdir="$root" --output="$work/log" --cpus-per-task=1 "$@"
    expect 0
    job=$(cat "$work/out") hurried=
}
state() { # of $job, or of all tasks of its array, each once
    squeue -h -r -j "$job" -t all -o %T | sort -u | tr '\n' ' '
}
# await TEST...: until that is so, for as long as a busy machine may need.
await() {
    local i
    for ((i = 0; i < 1500; i++)); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    bad+="    waited in vain for: $*"$'\n'
}
# over: also, a job that is queued again need not wait its two minutes, but until it has left its
# nodes: a start in the same second is refused (job credential revoked), and the job has failed.
over() {
    if [ "$(squeue -h -j "$job" -t all -o '%T %r')" = 'PENDING BeginTime' ] && [ "$(restarts)" != "$hurried" ]; then
        hurried=$(restarts)
        scontrol update JobId="$job" StartTime=now+3
    fi
    [[ $(state) =~ ^(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL|OUT_OF_MEMORY|\ )+$ ]]
}
# ends STATE: the job is over, as that.
ends() {
    await over
    cp "$work/log" "$work/err" 2>/dev/null # what is shown where the case fails
    holds "it ended as $1, not $(state)" test "$(state)" = "$1 "
}
restarts() { # of $job
    scontrol show job "$job" | grep -o 'Restarts=[0-9]*'
}
working() {
    grep -q '^kac: step [1-9]' "$work/log"
}
# same FOLDER FOLDER
same() {
    holds 'samples.csv is the same' cmp "$work/$1/samples.csv" "$work/$2/samples.csv"
    holds 'so is the trace' cmp <(steady "$work/$1") <(steady "$work/$2")
}

begin 'runs that are left alone'
for name in short long brisk; do
    run "$kac" run "$work/$name.yaml" --out "$work/$name" --quiet
    expect 0
done

begin 'one node'
submit docker/slurm/one-node.sbatch "$work/short.yaml" "$work/one"
ends COMPLETED
same short one

begin 'arguments go on to kac'
submit docker/slurm/one-node.sbatch "$work/short.yaml" "$work/seeded" --set seed=7
ends COMPLETED
holds 'another seed' grep -q '^  "seed": 7,' "$work/seeded/run.json"

begin 'two nodes'
submit --nodes=2 docker/slurm/many-nodes.sbatch "$work/short.yaml" "$work/two"
ends COMPLETED
same short two
holds 'two ranks shared it' grep -q '"ranks": 2,$' "$work/two/run.json"

begin 'a mistake is not tried again'
submit docker/slurm/one-node.sbatch "$work/short.yaml" "$work/mistaken" --set sampler.alpha=-1
ends FAILED
says 'sampler.alpha'
holds 'it ran once' test "$(restarts)" = Restarts=0
holds 'nothing is left' test ! -e "$work/mistaken"

begin 'told to stop, queued again, resumed'
submit docker/slurm/one-node.sbatch "$work/long.yaml" "$work/stopped"
await working
holds 'the signal is sent' scancel --signal=TERM "$job"
ends COMPLETED
says 'stopped at step'
says 'going on with'
holds 'it ran twice' test "$(restarts)" = Restarts=1
same long stopped

begin 'two nodes: told to stop, queued again, resumed'
submit --nodes=2 docker/slurm/many-nodes.sbatch "$work/long.yaml" "$work/both"
await working
holds 'the signal is sent' scancel --signal=TERM "$job"
ends COMPLETED
says 'stopped at step'
says 'going on with'
holds 'it ran twice' test "$(restarts)" = Restarts=1
same long both

# Slurm looks at the times of jobs twice a minute, and is half a minute early: of three minutes, the
# last two begin when a run is 30 to 60 seconds old.
begin 'two nodes: the time is nearly up, as often as it takes'
submit --nodes=2 --time=3 docker/slurm/many-nodes.sbatch "$work/slow.yaml" "$work/timed"
ends COMPLETED
says 'stopped at step'
says 'going on with'
holds 'it ran more than once' test "$(restarts)" != Restarts=0
holds 'samples.csv is the same' cmp "$work/brisk/samples.csv" "$work/timed/samples.csv"

begin 'stopped on two nodes, resumed on one'
submit --nodes=2 docker/slurm/many-nodes.sbatch "$work/long.yaml" "$work/fewer"
await working
holds 'it is cancelled' scancel "$job"
ends CANCELLED
submit docker/slurm/one-node.sbatch "$work/long.yaml" "$work/fewer"
ends COMPLETED
says 'going on with'
same long fewer

begin 'cancelled, and not queued again'
submit docker/slurm/one-node.sbatch "$work/long.yaml" "$work/cancelled"
await working
holds 'it is cancelled' scancel "$job"
ends CANCELLED
holds 'it ran once' test "$(restarts)" = Restarts=0
holds 'kac leaves a checkpoint' test -n "$(find "$work/cancelled" -name 'checkpoint-*.safetensors')"

begin 'the same command goes on with it'
submit docker/slurm/one-node.sbatch "$work/long.yaml" "$work/cancelled"
ends COMPLETED
same long cancelled

begin 'it makes room for an urgent job'
submit docker/slurm/one-node.sbatch "$work/long.yaml" "$work/preempted"
await working
holds 'the urgent job ends' sbatch --wait --partition=urgent --nodes=2 --exclusive --output=/dev/null --wrap true
ends COMPLETED
says 'going on with'
holds 'it ran twice' test "$(restarts)" = Restarts=1
same long preempted

begin 'an array of points'
vary=('sampler.particles=8,16' 'sampler.alpha=0.3,1')
submit --array=0-3 docker/slurm/array.sbatch "$work/short.yaml" "$work/sweep" "${vary[@]}"
ends COMPLETED
touch -d '2001-01-01' "$work"/sweep/point_*/samples.csv
run "$kac" sweep "$work/short.yaml" --vary "${vary[0]}" --vary "${vary[1]}" --out "$work/sweep" --no-baseline
expect 0
holds 'kac sweep finds all' test -z "$(find "$work/sweep" -name samples.csv -newermt '2002-01-01')"
holds 'a line for each point' test "$(cut -d, -f 1-4 "$work/sweep/sweep.csv" | tail -n +2 | tr '\n' ' ')" = \
    '8,0.3,point_000,ok 8,1,point_001,ok 16,0.3,point_002,ok 16,1,point_003,ok '

begin 'a point that the grid does not have'
submit --array=4 docker/slurm/array.sbatch "$work/short.yaml" "$work/sweep" "${vary[@]}"
ends FAILED
says 'the grid has no point 4'

begin 'seeds'
submit --array=0-2 docker/slurm/array.sbatch "$work/short.yaml" "$work/seeds" seed=1,2,3
ends COMPLETED
holds 'three runs' test "$(grep -hE '^  "seed": [123],?$' "$work"/seeds/*/run.json | sort -u | wc -l)" -eq 3
holds 'the first is the one above' cmp "$work/short/samples.csv" "$work/seeds/point_000/samples.csv"

begin 'nothing is left over'
tests/cluster/slurm down "$work/slurm"
holds 'no daemon' test -z "$(pgrep -f "$work/slurm")"

finish
