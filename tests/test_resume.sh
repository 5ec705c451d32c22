#!/usr/bin/env bash
# test_resume.sh BUILD -- runs that are stopped and killed end, resumed, with the bytes of runs that
# were left alone; checkpoints that are damaged or of another run are refused.  KAC_KILLS is the
# number of kills, 10 unless set.
# shellcheck disable=SC2317 # holds calls functions
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

models=$work/models
mkdir "$models"
"$build/tests/make_models" "$models" || exit 1
kills=${KAC_KILLS:-10}
RANDOM=20 # the same kills in every run, as far as the machine is the same

reward="reward: [{kind: table, file: $models/reward.safetensors}]"

# equal FOLDER FOLDER: all results, and nothing else, but for the time that it took.
equal() {
    local file
    holds "$2 holds what $1 does" test "$(ls "$work/$1")" = "$(ls "$work/$2")"
    holds 'samples.csv is the same' cmp "$work/$1/samples.csv" "$work/$2/samples.csv"
    for file in trace.jsonl run.json; do
        plain "$work/$1/$file" >"$work/one"
        plain "$work/$2/$file" >"$work/two"
        holds "$file is the same" cmp "$work/one" "$work/two"
    done
}

# ---- kills ----------------------------------------------------------------------------------

toy smc "$reward" 'process: {steps: 1000}' 'sampler: {groups: 32, particles: 64, alpha: 0.3}'
toy off "$reward" 'process: {steps: 400}' 'sampler: {groups: 32, particles: 64, alpha: 0.3, reuse: off}'
toy svdd "$reward" 'process: {steps: 1000}' 'sampler: {algorithm: svdd_pm, groups: 64, particles: 8, children: 4, alpha: 0.3}'
toy nested "$reward" 'process: {steps: 600}' 'sampler: {algorithm: nested, groups: 32, particles: 16, children: 4, alpha: 0.3}'
toy refine "$reward" 'process: {steps: 40}' 'sampler: {algorithm: rerd, groups: 32, particles: 32, alpha: 0.3}' 'driver: {iterations: 150}'
toy gibbs "$reward" 'process: {steps: 20}' 'sampler: {algorithm: particle_gibbs, groups: 32, particles: 32, alpha: 0.3}' 'driver: {sweeps: 80}'
toy mcts "$reward" 'process: {steps: 20}' 'sampler: {algorithm: mcts, groups: 64, alpha: 0.3}' 'search: {rollouts: 200, stages: 4}'
cat >"$work/vectors.yaml" <<END
model: {file: models/gmm_ring.safetensors}
process: {kind: gaussian, steps: 400, order: 2, eta: 1}
reward: [{kind: quadratic, file: models/gmm_measurement.safetensors}]
sampler: {algorithm: smc, groups: 32, particles: 32, twist: {kind: posterior_mean}}
device: {threads: 1}
END
toy worker "$reward" 'process: {steps: 1000}' 'sampler: {groups: 4, particles: 16, alpha: 0.3, reuse: off}'
mkdir "$work/log.worker"
sed -i "s|^reward: .*|reward: [{kind: worker, processes: 2, command: [$build/tests/worker, $work/log.worker, good, '1']}]|" "$work/worker.yaml"

# compare KIND PAUSE: what was killed with what was left alone.
compare() {
    sed -i "s/\"seconds\": $2.*/\"seconds\": 600.0,/" "$work/$1.cut/run.json"
    equal "$1.whole" "$1.cut"
    clean
}
kinds=(smc off svdd nested refine gibbs mcts vectors worker)
hit=0
for ((k = 0; k < ${#kinds[@]}; k++)); do
    kind=${kinds[k]}
    begin "$kind, killed and resumed"
    run "$kac" run "$work/$kind.yaml" --out "$work/$kind.whole" --quiet
    expect 0
    # a thousandth of a second: killed while it writes
    pause=0.0$((RANDOM % 5))1
    start run "$work/$kind.yaml" --out "$work/$kind.cut" --quiet --set checkpoint.seconds=$pause
    for ((i = k; i < kills; i += ${#kinds[@]})); do
        await has_checkpoints "$work/$kind.cut" 1
        sleep 0.$((RANDOM % 2))$((RANDOM % 10))
        if kill -KILL "$pid" 2>/dev/null; then hit=$((hit + 1)); fi
        ended
        holds 'no process is left' soon none_of "$work/log.worker"
        if [ -f "$work/$kind.cut/run.json" ]; then # it was complete: again
            run "$kac" resume "$work/$kind.cut"
            expect 0
            compare "$kind" "$pause"
            rm -rf "$work/$kind.cut"
            start run "$work/$kind.yaml" --out "$work/$kind.cut" --quiet --set checkpoint.seconds=$pause
        else
            start resume "$work/$kind.cut" --quiet --set checkpoint.seconds=$pause
        fi
    done
    ended
    expect 0
    compare "$kind" "$pause"
done
begin 'kills that met a run'
holds "a third of them did, not $hit" test $((3 * hit)) -ge "$kills"

# ---- signals --------------------------------------------------------------------------------

toy long "$reward" 'process: {steps: 6000}' 'sampler: {groups: 32, particles: 64, alpha: 0.3}'
begin 'a run that is left alone'
run "$kac" run "$work/long.yaml" --out "$work/long" --quiet
expect 0
for signal in TERM INT HUP; do
    begin "SIG$signal leaves a checkpoint"
    rm -rf "$work/cut"
    start run "$work/long.yaml" --out "$work/cut"
    await grep -q '^kac: step' "$work/err"
    kill -s $signal "$pid"
    ended
    expect 3
    says 'stopped at step'
    says "kac resume $work/cut goes on"
    holds 'one checkpoint, and the configuration' test "$(count "$work/cut")$(find "$work/cut" -type f | wc -l)" = 12
    clean
    run "$kac" resume "$work/cut"
    expect 0
    equal long cut
    clean
done

begin 'SIGUSR1 leaves a checkpoint and goes on'
rm -rf "$work/cut"
start run "$work/long.yaml" --out "$work/cut"
await grep -q '^kac: step' "$work/err"
kill -s USR1 "$pid"
await has_checkpoints "$work/cut" 1
holds 'it is there' has_checkpoints "$work/cut" 1
ended
expect 0
equal long cut

begin 'SIGTERM before there is a run'
rm -rf "$work/cut"
mkfifo "$work/late.yaml"
start run "$work/late.yaml" --out "$work/cut"
exec 3>"$work/late.yaml" # once kac opens it
kill -s TERM "$pid"
cat "$work/long.yaml" >&3
exec 3>&-
ended
expect 3
says 'stopped at step 0 of'
holds 'there is no folder' test ! -e "$work/cut"
clean

begin 'without checkpoints'
rm -rf "$work/cut"
start run "$work/long.yaml" --out "$work/cut" --set checkpoint.seconds=off
await grep -q '^kac: step' "$work/err"
kill -s USR1 "$pid"
sleep 0.2
kill -s TERM "$pid"
ended
expect 3
says 'nothing was written'
holds 'there is no folder' test ! -e "$work/cut"
clean

# ---- which are kept, and which are used -------------------------------------------------------

# stopped: the long run, stopped in its folder cut with the checkpoints that it keeps.
stopped() {
    rm -rf "$work/cut"
    start run "$work/long.yaml" --out "$work/cut" --set checkpoint.seconds=0.02 --set checkpoint.keep=3
    await has_checkpoints "$work/cut" 3
    kill -s TERM "$pid"
    ended
}
begin 'three are kept'
stopped
expect 3
holds 'there are three' test "$(count "$work/cut")" -eq 3
cp -r "$work/cut" "$work/kept"

begin 'a checkpoint that is damaged: the one before'
damage "$(newest "$work/cut")"
run "$kac" resume "$work/cut" --quiet --set checkpoint.seconds=600 --set checkpoint.keep=2
expect 0
says 'damaged'
equal long cut

begin 'a checkpoint that is cut short, and one that is empty'
rm -rf "$work/cut"
cp -r "$work/kept" "$work/cut"
latest=$(newest "$work/cut")
truncate -s 100000 "$latest"
: >"$work/cut/checkpoint-00001999.safetensors"
run "$kac" resume "$work/cut" --quiet --set checkpoint.seconds=600 --set checkpoint.keep=2
expect 0
says "$latest"
equal long cut

begin 'none that can be used'
rm -rf "$work/cut"
cp -r "$work/kept" "$work/cut"
for file in "$work"/cut/checkpoint-*; do damage "$file"; done
run "$kac" resume "$work/cut"
expect 2
says 'no checkpoint in it that can be used'
holds 'they stay' test "$(count "$work/cut")" -eq 3
clean

begin 'of another configuration'
rm -rf "$work/cut"
cp -r "$work/kept" "$work/cut"
run "$kac" resume "$work/cut" --set seed=2
expect 2
says 'another seed'
sed -i 's/"alpha": 0.*,/"alpha": 0.5,/' "$work/cut/config.json"
run "$kac" resume "$work/cut"
expect 2
says 'another sampler.alpha'

begin 'a run that a dead group has ended'
toy dead "$reward" 'process: {steps: 1000}' 'sampler: {groups: 16, particles: 2, alpha: 0.3, on_dead: error}'
run "$kac" run "$work/dead.yaml" --set reward.0.weight=1 --set reward.0.at_least=0.5 --out "$work/dead" --quiet --set checkpoint.seconds=0.001
expect 2
says 'every weight of group'
run "$kac" resume "$work/dead" --quiet
expect 2
run "$kac" resume "$work/dead" --quiet --set sampler.on_dead=revive
expect 2
says 'another sampler.on_dead'
run "$kac" resume "$work/dead" --quiet --set sampler.on_dead=freeze
expect 0
run "$kac" run "$work/dead.yaml" --set reward.0.weight=1 --set reward.0.at_least=0.5 --out "$work/frozen" --quiet --set sampler.on_dead=freeze
expect 0
holds 'samples.csv is the same' cmp "$work/frozen/samples.csv" "$work/dead/samples.csv"

begin 'of another model'
rm -rf "$work/cut"
cp -r "$work/kept" "$work/cut"
cp "$models/reward.safetensors" "$work/reward.kept"
damage "$models/reward.safetensors"
run "$kac" resume "$work/cut"
expect 2
says 'reward.safetensors has changed since'
cp "$work/reward.kept" "$models/reward.safetensors"

begin 'by another number of threads and other instructions'
rm -rf "$work/cut"
cp -r "$work/kept" "$work/cut"
KAC_ISA=portable run "$kac" resume "$work/cut" --quiet --set device.threads=2
expect 0
holds 'samples.csv is the same' cmp "$work/long/samples.csv" "$work/cut/samples.csv"

# ---- the folder -----------------------------------------------------------------------------

begin 'a folder that holds a stopped run'
rm -rf "$work/cut"
cp -r "$work/kept" "$work/cut"
run "$kac" run "$work/long.yaml" --out "$work/cut" --quiet
expect 2
says 'kac resume goes on with it'
run "$kac" run "$work/long.yaml" --out "$work/cut" --quiet --force
expect 0
equal long cut

begin 'a link to the folder of a stopped run'
rm -rf "$work/cut" && mkdir "$work/disk"
cp -r "$work/kept" "$work/disk/cut"
ln -s disk/cut "$work/cut"
run "$kac" resume "$work/cut" --quiet --set checkpoint.seconds=600 --set checkpoint.keep=2
expect 0
holds 'the link is one still' test -L "$work/cut"
holds 'the run is where it was' test "$(ls -A "$work/disk")" = cut -a ! -e "$work/disk/cut/config.json"
equal long cut
rm -rf "$work/cut" "$work/disk"

begin 'resumed from another folder: relative paths begin where the run was started'
mkdir "$work/project" "$work/elsewhere"
cp -r "$models" "$work/project/models"
sed "s|$models/|models/|g" "$work/long.yaml" >"$work/project/long.yaml"
cd "$work/project" || exit 1
run "$kac" run long.yaml --out whole --quiet
expect 0
start run long.yaml --out cut
await grep -q '^kac: step' "$work/err"
kill -s TERM "$pid"
ended
expect 3
cp -r cut moved
cd "$work/elsewhere" || exit 1
run "$kac" resume ../project/cut --quiet
expect 0
cd "$root" || exit 1
equal project/whole project/cut
holds 'run.json says how it was started' grep -qE '"command": "[^ ]*kac run long.yaml --out cut"' "$work/project/cut/run.json"
holds 'and where' grep -qF "\"folder\": \"$(cd "$work/project" && pwd -P)\"" "$work/project/cut/run.json"
mv "$work/project" "$work/gone" # with all that its paths name
cd "$work/gone" || exit 1
run "$kac" resume moved --quiet
expect 0
says 'relative paths begin here instead'
cd "$root" || exit 1
equal gone/whole gone/moved

begin 'a run that is complete'
run "$kac" resume "$work/long"
expect 0
says 'is complete'

begin 'a folder that is none of a run'
mkdir -p "$work/other"
run "$kac" resume "$work/other"
expect 2
says 'is not the folder of a run that was stopped'

# ---- what somebody puts there ----------------------------------------------------------------

# busy: the long run goes on in $work/cut, where it has left checkpoints.
busy() {
    start run "$work/long.yaml" --out "$work/cut" --set checkpoint.seconds=0.02 "$@"
    await has_checkpoints "$work/cut" 1
}
# mine FOLDER: puts files into it; noted: they are there; unnoted removes them.
mine() {
    mkdir "$1/analysis"
    echo 'a thought' >"$1/notes.txt"
    echo 'x,y' >"$1/analysis/samples.csv"
    echo 'all of them' >"$1/samples.xlsx"
}
noted() {
    grep -qx 'a thought' "$1/notes.txt" && grep -qx 'x,y' "$1/analysis/samples.csv" && grep -qx 'all of them' "$1/samples.xlsx"
}
unnoted() {
    rm -r "$1/analysis" "$1/notes.txt" "$1/samples.xlsx"
}

begin 'files put beside a run on its way stay'
rm -rf "$work/cut"
busy
mine "$work/cut"
ended
expect 0
holds 'they are there' noted "$work/cut"
unnoted "$work/cut"
sed -i 's/"seconds": 0.02.*/"seconds": 600.0,/' "$work/cut/run.json"
equal long cut
clean

begin 'files put beside a run that was stopped stay'
rm -rf "$work/cut"
cp -r "$work/kept" "$work/cut"
mine "$work/cut"
run "$kac" resume "$work/cut" --quiet --set checkpoint.seconds=600 --set checkpoint.keep=2
expect 0
holds 'they are there' noted "$work/cut"
unnoted "$work/cut"
equal long cut
clean

begin 'and where signal 9 came just before'
rm -rf "$work/cut"
cp -r "$work/long" "$work/cut"
cp -r "$work/kept" "$work/.cut.partial-123456"
mine "$work/.cut.partial-123456"
run "$kac" resume "$work/cut" --quiet
expect 0
holds 'they are there' noted "$work/cut"
unnoted "$work/cut"
equal long cut
clean

begin 'what has a name that is taken stays where it is'
cp -r "$work/kept" "$work/.cut.partial-123456"
mkdir "$work/.cut.partial-123456/notes.txt" "$work/cut/notes.txt"
run "$kac" resume "$work/cut" --quiet
expect 0
says "$work/.cut.partial-123456 stays, with what can neither be removed nor moved into $work/cut"
holds 'nothing else is in it' test "$(ls -A "$work/.cut.partial-123456")" = notes.txt
rm -rf "$work/.cut.partial-123456"

# --force looks when it begins, and again before it replaces.
for has in thesis.tex config.json; do
    begin "a folder with $has in place of the run that --force would have replaced"
    rm -rf "$work/cut"
    cp -r "$work/long" "$work/cut"
    start run "$work/long.yaml" --out "$work/cut" --force --set checkpoint.seconds=off
    await grep -q '^kac: step' "$work/err"
    rm -r "$work/cut"
    mkdir "$work/cut"
    echo 'a thought' >"$work/cut/$has"
    ended
    expect 3
    says "$work/cut is no longer what it was"
    says "what was made is in $work/.cut.complete-"
    holds 'it is as it was' grep -qx 'a thought' "$work/cut/$has"
    holds 'nothing else is there' test "$(ls -A "$work/cut")" = "$has"
    holds 'the new run is complete' cmp "$work/long/samples.csv" "$work"/.cut.complete-*/samples.csv
    rm -rf "$work"/.cut.complete-*
    clean
done

# The results stay as they are, with the new run's checkpoints beside them.
begin '--force keeps a complete run until the new one is'
rm -rf "$work/cut"
cp -r "$work/long" "$work/cut"
sed -i 's/"seed": 1/"seed": 11/' "$work/cut/run.json"
cp -r "$work/cut" "$work/earlier"
busy --force
kill -KILL "$pid"
ended
for file in run.json samples.csv samples.fasta trace.jsonl; do
    holds "$file is as it was" cmp "$work/earlier/$file" "$work/cut/$file"
done
rm -rf "$work"/.cut.partial-*
for ((i = 0; i < 2; i++)); do # also over the stopped one that has it beside it
    busy --force
    await grep -q '^kac: step' "$work/err"
    kill -TERM "$pid"
    ended
    expect 3
    says "kac resume $work/cut goes on"
    holds 'it is there' cmp "$work/earlier/run.json" "$work/cut/run.json"
    holds 'no checkpoints but its own are' test "$(count "$work/cut")" -le 2
    clean
done
rm -rf "$work/earlier"
run "$kac" resume "$work/cut" --quiet --set checkpoint.seconds=600
expect 0
equal long cut
clean

begin 'another run in place of one on its way'
rm -rf "$work/cut"
start run "$work/long.yaml" --out "$work/cut"
await grep -q '^kac: step' "$work/err"
kill -USR1 "$pid"
await has_checkpoints "$work/cut" 1
sleep 0.1
mv "$work/cut" "$work/aside"
cp -r "$work/kept" "$work/cut"
kill -USR1 "$pid"
ended
expect 3
says "$work/cut is no longer what it was"
holds 'it is as it was' diff -r "$work/kept" "$work/cut"
rm -rf "$work"/.cut.complete-* "$work/aside"
clean

begin '--force yields to a run that began in the same place meanwhile'
rm -rf "$work/cut"
cp -r "$work/long" "$work/cut"
start run "$work/long.yaml" --force --out "$work/cut"
await grep -q '^kac: step' "$work/err"
cp "$work/kept"/* "$work/cut"
ended
expect 3
says "$work/cut is no longer what it was"
holds 'the other stays' cmp "$work/kept/config.json" "$work/cut/config.json"
rm -rf "$work"/.cut.complete-*
clean

begin 'nothing in place of a run on its way'
rm -rf "$work/cut"
busy
mv "$work/cut" "$work/aside"
ended
expect 0
rm -r "$work/aside"
holds 'samples.csv is the same' cmp "$work/long/samples.csv" "$work/cut/samples.csv"
clean

begin 'a full disk: the run goes on without checkpoints'
rm -rf "$work/cut"
# shellcheck disable=SC2016
run bash -c 'ulimit -f 200; exec "$@"' - "$kac" run "$work/long.yaml" --out "$work/cut" --quiet --set output.trace=off --set checkpoint.seconds=0.05
expect 0
says 'cannot write'
holds 'samples.csv is the same' cmp "$work/long/samples.csv" "$work/cut/samples.csv"
holds 'nothing else is there' test "$(ls "$work/cut")" = "$(printf '%s\n' run.json samples.csv samples.fasta)"
clean

begin 'trajectories'
rm -rf "$work/cut"
run "$kac" run "$work/long.yaml" --out "$work/recorded" --record "$work/paths" --record-every 250 --quiet
expect 0
start run "$work/long.yaml" --out "$work/cut" --record "$work/cut.paths" --record-every 250
await grep -q '^kac: step' "$work/err"
kill -s TERM "$pid"
ended
expect 3
run "$kac" resume "$work/cut"
expect 2
says 'give --record DIR'
run "$kac" resume "$work/cut" --record "$work/cut.paths" --quiet
expect 0
equal recorded cut
holds 'they are the same' cmp "$work/paths/trajectories.safetensors" "$work/cut.paths/trajectories.safetensors"
clean

begin 'a sweep goes on with a point that was stopped'
run "$kac" sweep "$work/long.yaml" --vary sampler.alpha=0.3,0.6 --out "$work/sweep" --no-baseline --quiet
expect 0
start sweep "$work/long.yaml" --vary sampler.alpha=0.3,0.6 --out "$work/cut.sweep" --no-baseline
await grep -q '^kac: step' "$work/err"
kill -s TERM "$pid"
ended
expect 3
holds 'it left a checkpoint' has_checkpoints "$work/cut.sweep/point_000" 1
run "$kac" sweep "$work/long.yaml" --vary sampler.alpha=0.3,0.6 --out "$work/cut.sweep" --no-baseline --quiet
expect 0
equal sweep/point_000 cut.sweep/point_000
equal sweep/point_001 cut.sweep/point_001

finish
