#!/usr/bin/env bash
# test_faults.sh BUILD -- what is wrong ends in one clear sentence, the right exit code, and
# nothing left over.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

models=$work/models
out=$work/place/run
mkdir "$models" "$work/place"
"$build/tests/make_models" "$models" || exit 1

# config NAME [LINE...]: a working configuration of a toy, and lines to add.
config() {
    local file=$work/$1.yaml
    shift
    {
        echo "model: {file: $models/denoiser.safetensors}"
        echo "process: {steps: 20}"
        echo "reward: [{kind: table, file: $models/reward.safetensors}]"
        echo "device: {threads: 1}"
        printf '%s\n' "$@"
    } >"$file"
}
kac_run() {
    run "$kac" run "$@" --out "$out"
}
# refused CODE: complaints and nothing else, neither the output nor its hidden sibling.
refused() {
    expect "$1"
    holds 'nothing is left over' test -z "$(ls -A "$work/place")"
    holds 'one line a mistake, each from kac' awk '!/^kac: / { bad = 1 } END { exit bad || NR == 0 }' "$work/err"
    holds 'nothing on stdout' test ! -s "$work/out"
    rm -rf "$work/place"
    mkdir "$work/place"
}

config good 'sampler: {groups: 2, particles: 8}'

begin 'a run that is right'
kac_run "$work/good.yaml"
expect 0
holds 'its files are there' test -s "$out/samples.csv" -a -s "$out/run.json" -a -s "$out/trace.jsonl"
holds 'only the output is there' test "$(ls -A "$work/place")" = run
rm -rf "$out"

# ---- what is given --------------------------------------------------------------------------

begin 'a configuration that is not there'
kac_run "$work/nowhere.yaml"
says nowhere.yaml
refused 2

begin 'a configuration that is not YAML'
printf 'model: {file: [\n' >"$work/broken.yaml"
kac_run "$work/broken.yaml"
says 'broken.yaml:'
refused 2

begin 'a folder for a configuration'
kac_run "$work"
refused 2

begin 'a key that does not exist'
config key 'sampler: {partcles: 8}'
kac_run "$work/key.yaml"
says 'key.yaml:5:'
says 'particles'
refused 2

begin 'two mistakes in one file'
config two 'sampler: {partcles: 8}' 'seed: much'
kac_run "$work/two.yaml"
says 'two.yaml:5:'
says 'two.yaml:6:'
refused 2

begin 'a value out of range'
config value 'sampler: {particles: 0}'
kac_run "$work/value.yaml"
says 'value.yaml:5:'
refused 2

begin '--set with a key that does not exist'
kac_run "$work/good.yaml" --set sampler.partcles=3
says particles
refused 2

begin '--set with a value out of range'
kac_run "$work/good.yaml" --set sampler.alpha=hot
says sampler.alpha
refused 2

begin '--set without a value'
kac_run "$work/good.yaml" --set sampler.alpha
says 'KEY=VALUE'
refused 2

begin 'an instruction set that does not exist'
KAC_ISA=avx1024 kac_run "$work/good.yaml"
says device.isa
refused 2

begin 'a GPU that is not there'
kac_run "$work/good.yaml" --set device.name=cuda:99
says 'device "cuda:99"'
refused 3

begin 'what auto stands for is not there'
KAC_DEVICE=cuda:99 kac_run "$work/good.yaml"
says 'device "cuda:99"'
refused 3

begin 'what auto stands for is no device'
KAC_DEVICE=gpu kac_run "$work/good.yaml"
says 'device "gpu"'
refused 2

begin 'the configuration decides over KAC_DEVICE'
KAC_DEVICE=cuda:99 kac_run "$work/good.yaml" --set device.name=cpu
expect 0
rm -rf "$out"

begin 'a device that is none'
kac_run "$work/good.yaml" --set device.name=gpu
says 'auto, cpu or cuda:N'
refused 2

begin 'a precision that the CPU does not have'
kac_run "$work/good.yaml" --set device.name=cpu --set device.precision=tf32
says device.precision
refused 3

begin 'a model that is not there'
kac_run "$work/good.yaml" --set model.file="$work/nowhere.safetensors"
says nowhere.safetensors
refused 2

begin 'a model that is cut short'
head -c 2000 "$models/denoiser.safetensors" >"$models/short.safetensors"
kac_run "$work/good.yaml" --set model.file="$models/short.safetensors"
says short.safetensors
refused 2

begin 'a model that is no safetensors file'
kac_run "$work/good.yaml" --set model.file="$work/good.yaml"
says good.yaml
refused 2

begin 'a tensor of the wrong shape'
kac_run "$work/good.yaml" --set model.file="$models/shape.safetensors"
says logits
refused 2

begin 'a reward for another length'
kac_run "$work/good.yaml" --set reward.0.file="$models/length.safetensors"
says length.safetensors
refused 2

begin 'a reward over another alphabet'
kac_run "$work/good.yaml" --set reward.0.file="$models/alphabet.safetensors"
says alphabet.safetensors
refused 2

begin 'a reward in the place of the denoiser'
kac_run "$work/good.yaml" --set model.file="$models/judge.safetensors"
says judge.safetensors
refused 2

begin 'NaN among the weights'
kac_run "$work/good.yaml" --set model.file="$models/nan.safetensors"
says nan.safetensors
refused 2

begin 'a reward that is not a number'
kac_run "$work/good.yaml" --set reward.0.kind=pwm --set reward.0.file="$models/infinite.safetensors"
says step
says slot
refused 2

# ---- the output -----------------------------------------------------------------------------

begin 'an output that exists'
mkdir "$out"
echo mine >"$out/file"
kac_run "$work/good.yaml"
expect 2
says "$out exists"
holds 'it is as it was' grep -qx mine "$out/file"

begin '--force on a folder that is no run'
kac_run "$work/good.yaml" --force
expect 2
holds 'it is as it was' grep -qx mine "$out/file"
holds 'nothing else is there' test "$(ls -A "$work/place")" = run

begin '--force on a folder of somebody who has a config.json too'
rm "$out/file"
echo '{"model_type": "bert"}' >"$out/config.json"
kac_run "$work/good.yaml" --force
expect 2
says "$out is not the folder of a run; --force does not replace it"
holds 'it is as it was' test -s "$out/config.json"

begin '--force on a run with something beside it'
echo '{}' >"$out/run.json"
mkdir "$out/notes"
kac_run "$work/good.yaml" --force
expect 2
says "$out holds notes, which is no file of a run; --force does not replace it"
holds 'it is as it was' test -d "$out/notes" -a -s "$out/config.json"

begin '--force on a file'
rm -rf "$out"
echo mine >"$out"
kac_run "$work/good.yaml" --force
expect 2
holds 'it is as it was' grep -qx mine "$out"
rm "$out"

begin '--force replaces an earlier run'
kac_run "$work/good.yaml"
expect 0
echo old >"$out/samples.fasta"
kac_run "$work/good.yaml" --force
expect 0
holds 'the new run is there' test -s "$out/samples.csv"
holds 'the old one is gone' grep -q '^>' "$out/samples.fasta"
holds 'nothing else is there' test "$(ls -A "$work/place")" = run

begin 'a failed --force leaves the earlier run'
echo old >"$out/samples.fasta"
kac_run "$work/good.yaml" --force --set reward.0.kind=pwm --set reward.0.file="$models/infinite.safetensors"
expect 2
holds 'the old one is there' grep -qx old "$out/samples.fasta"
holds 'nothing else is there' test "$(ls -A "$work/place")" = run
rm -rf "$out"

# run.json has every key, which would be known when all is done.
begin 'an output whose name is not UTF-8'
for set in "--out $work/place/"$'a\xff' "--set output.dir=$work/place/"$'a\xff' "--set model.file=$work/"$'\xff'; do
    # shellcheck disable=SC2086 # two words
    run timeout 60 "$kac" run "$work/good.yaml" --out "$work/place/b" $set
    says ': expected text in UTF-8, found `'
    refused 2
done

begin 'a record that exists'
mkdir "$work/place/record"
echo mine >"$work/place/record/file"
kac_run "$work/good.yaml" --record "$work/place/record"
expect 2
says "$work/place/record exists; choose another --record"
kac_run "$work/good.yaml" --record "$work/place/record" --force
expect 2
holds 'it is as it was' grep -qx mine "$work/place/record/file"
holds 'nothing else is there' test "$(ls -A "$work/place")" = record
rm -rf "$work/place/record"

begin '--force replaces an earlier record'
for force in '' --force; do
    kac_run "$work/good.yaml" --record "$work/place/record" $force
    expect 0
done
holds 'both folders are there, and no other' test "$(find "$work/place" -mindepth 1 -maxdepth 1 | wc -l)" -eq 2
holds 'the record is there' test -s "$work/place/record/trajectories.safetensors"
rm -rf "$out" "$work/place/record"

# Each would leave no place for the other, which would be known when all is done.
for record in "$out" "$work/place/../place/./run" "$out/record" "$work/place" "$work/link/run/record"; do
    begin "a record in the output folder, or around it: $record"
    ln -sfn place "$work/link"
    kac_run "$work/good.yaml" --record "$record"
    rm "$work/link"
    says 'may not be the same, nor one in the other'
    refused 2
done

begin 'a record beside the output folder'
kac_run "$work/good.yaml" --record "${out}s"
expect 0
rm -rf "$out" "${out}s"

begin 'an output that somebody else has named meanwhile: nothing is lost'
mkfifo "$work/go"
cat >"$work/late.yaml" <<EOF
model: {file: $models/denoiser.safetensors}
process: {steps: 4}
reward: [{kind: worker, command: [sh, -c, 'cat "\$0" >/dev/null; while read -r n; do while [ \$n -gt 0 ]; do read -r x; n=\$((n - 1)); echo 1; done; done', $work/go]}]
sampler: {algorithm: smc, groups: 4, particles: 4}
EOF
start run "$work/late.yaml" --out "$out" --quiet
# shellcheck disable=SC2317 # await calls it
begun() { test -n "$(ls -A "$work/place")"; }
await begun
mkdir "$out"
echo mine >"$out/file"
# shellcheck disable=SC2016 # the other shell's
timeout 60 sh -c ': >"$0"' "$work/go"
ended
expect 3
says 'what was made is in'
holds 'it is as it was' grep -qx mine "$out/file"
holds 'the samples are there' test -s "$(sed -n 's/^kac: what was made is in //p' "$work/err")/samples.csv"
rm -rf "$work/place" && mkdir "$work/place"

begin 'a record of too much'
config long_record 'sampler: {algorithm: pretrained, groups: 20000}'
kac_run "$work/long_record.yaml" --set process.steps=200000 --record "$work/place/record"
says '4 GiB'
refused 2

begin 'a failed run leaves no record'
kac_run "$work/good.yaml" --record "$work/place/record" --set reward.0.kind=pwm \
    --set reward.0.file="$models/infinite.safetensors"
refused 2

begin 'a value network that is not there'
kac_run "$work/good.yaml" --set sampler.algorithm=svdd_mc --set sampler.value.file=nowhere.safetensors
says nowhere.safetensors
refused 2

begin 'an output without a name'
run "$kac" run "$work/good.yaml" --out "$work/place/.."
refused 2

begin 'an output below a file'
: >"$work/plain"
run "$kac" run "$work/good.yaml" --out "$work/plain/run"
says "$work/plain"
refused 2

# Root may write anywhere, so somebody else tries.
begin 'a folder that can not be written'
someone=()
if [ "$(id -u)" -eq 0 ]; then someone=(setpriv --reuid 65534 --regid 65534 --clear-groups); fi
chmod 755 "$work" "$models"
chmod 555 "$work/place"
if ! "${someone[@]}" "$kac" --version >/dev/null 2>&1; then
    skip 'the unprivileged user can not start kac here'
else
    run "${someone[@]}" "$kac" run "$work/good.yaml" --out "$out"
    says "$work/place"
    chmod 755 "$work/place"
    refused 2
fi
chmod 755 "$work/place"

# A file may have 4 blocks; the limit acts like a full disk, and on root too.
begin 'a full disk'
config large 'sampler: {groups: 64, particles: 64}'
run bash -c 'ulimit -f 4; exec "$@"' - "$kac" run "$work/large.yaml" --out "$out"
refused 3

begin 'a full disk under standard output'
if [ -w /dev/full ]; then
    run bash -c '"$@" >/dev/full' - "$kac" help
    expect 3
    says 'standard output'
else
    skip 'no /dev/full'
fi

# ---- signals --------------------------------------------------------------------------------

# interrupted SIGNAL: kac run gets it in the middle.
interrupted() {
    set -m # else the shell lets children in the background ignore SIGINT
    "$kac" run "$work/long.yaml" --out "$out" >"$work/out" 2>"$work/err" &
    local pid=$!
    set +m
    until grep -q '^kac: step' "$work/err" || ! kill -0 "$pid"; do sleep 0.05; done
    kill -s "$1" "$pid"
    code=0
    wait "$pid" 2>/dev/null || code=$?
    sed -i '/^kac: step/d' "$work/err"
}
config long 'process: {steps: 1000000}' 'sampler: {groups: 4, particles: 4}' 'checkpoint: {seconds: off}'
sed -i '2d' "$work/long.yaml" # the shorter process
for signal in INT TERM HUP; do
    begin "SIG$signal in the middle"
    interrupted $signal
    says 'stopped at step'
    says 'of 1000000; nothing was written'
    refused 3
done

begin 'the reader of the progress goes away'
run bash -c '"$@" 2>&1 >/dev/null | true; exit "${PIPESTATUS[0]}"' - "$kac" run "$work/good.yaml" --out "$out"
expect 0
holds 'its files are there' test -s "$out/samples.csv"
rm -rf "$out"

# ---- the command line -----------------------------------------------------------------------

wrong() { # TEXT ARGUMENT...
    local text=$1
    shift
    begin "kac $*"
    run "$kac" "$@"
    expect 2
    says "$text"
    holds 'one line' test "$(wc -l <"$work/err")" -eq 1
}
wrong 'give a command'
wrong 'did you mean run?' rum
wrong 'kac help lists' frobnicate
wrong 'did you mean --force?' run "$work/good.yaml" --forec
wrong 'unknown option -x' run "$work/good.yaml" -x
wrong 'wants a value' run "$work/good.yaml" --out
wrong 'takes no value' run "$work/good.yaml" --force=yes
wrong 'goes with --record' run "$work/good.yaml" --record-every 2
wrong 'want an integer' run "$work/good.yaml" --record here --record-every 0
wrong 'want an integer' run "$work/good.yaml" --record here --record-every 2x
wrong 'too few' run
wrong 'too many' run "$work/good.yaml" "$work/good.yaml"
wrong 'too many' devices here
wrong 'nothing.safetensors' inspect "$work/nothing.safetensors"
wrong 'partcles' explain sampler.partcles
wrong 'want a number' verify a b --tolerance much
wrong 'good.yaml' verify "$models/denoiser.safetensors" "$work/good.yaml"
wrong 'nowhere' compare "$work/nowhere"

finish
