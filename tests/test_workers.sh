#!/usr/bin/env bash
# test_workers.sh BUILD -- rewards from other programs: the same samples whatever they do, one
# clear sentence where they cannot go on, and no process left behind.
# shellcheck source=tests/lib.sh disable=SC2016 # dollars are awk's, backquotes kac's
. "$(dirname "$0")/lib.sh"

models=$work/models
mkdir "$models"
"$build/tests/make_models" "$models" || exit 1

# config NAME REWARD [LINE...]: 10,500 rewards of a toy, each asked for.
config() {
    local file=$work/$1.yaml reward=$2
    shift 2
    {
        echo "model: {file: $models/denoiser.safetensors}"
        echo 'process: {steps: 20}'
        echo "reward: [{name: r, $reward}]"
        echo 'sampler: {groups: 10, particles: 50, reuse: off}'
        echo 'device: {threads: 1}'
        printf '%s\n' "$@"
    } >"$file"
}
# ask NAME HABIT EVERY [ARGUMENT...]: that run, by a worker with a habit (tests/worker.c).
ask() {
    local name=$1 habit=$2 every=$3
    shift 3
    mkdir -p "$work/log.$name"
    config "$name" "kind: worker, command: [$build/tests/worker, $work/log.$name, $habit, '$every']"
    run "$kac" run "$work/$name.yaml" --out "$work/$name" --quiet "$@"
}
small=(--set process.steps=4 --set sampler.groups=2)
same() { # NAME: its samples are those of the table
    holds "the samples of $1 are the table's" cmp "$work/$1/samples.csv" "$work/table/samples.csv"
}
counted() { # NAME KEY: a number of the first worker in run.json
    sed -n "s/^ *\"$2\": \([0-9]*\),\{0,1\}$/\1/p" "$work/$1/run.json" | head -n 1
}
over() { # NAME: none of the processes that it logged is there, now or soon
    local pids
    mapfile -t pids <"$work/log.$1/pids"
    gone "${pids[@]}"
}
refused() { # CODE NAME
    expect "$1"
    # below it, what a worker has said and how to try it
    holds 'one sentence' test "$(grep -cvE '^kac: (    |try it: )' "$work/err")" -eq 1
    holds 'no output' test ! -e "$work/$2"
    if [ -e "$work/log.$2/pids" ]; then over "$2"; fi
}

begin 'the reward that workers are to match'
config table "kind: table, file: $models/reward.safetensors"
run "$kac" run "$work/table.yaml" --out "$work/table" --quiet
expect 0

# ---- the same samples -----------------------------------------------------------------------

for processes in 1 3; do
    begin "a worker in $processes processes"
    ask "good$processes" good 1 --set reward.0.processes=$processes
    expect 0
    same "good$processes"
    over "good$processes"
    holds 'so many processes' test "$(lines "$work/log.good$processes/pids")" -eq "$processes"
    holds 'every object was answered' test "$(counted "good$processes" answered)" -eq 10500
    holds 'and asked once' test "$(stat -c %s "$work/log.good$processes/asked")" -eq 10500
done

begin 'batches of one, of 7 and of all'
for batch in 1 7 65536; do
    ask "batch$batch" good 1 --set reward.0.batch=$batch --set reward.0.processes=2
    expect 0
    same "batch$batch"
done

begin 'each of 20 objects ends a copy, which answers line by line'
ask crash crash 20 --set reward.0.processes=3 --set reward.0.attempts=1000
expect 0
same crash
over crash
holds 'nothing is lost' test "$(counted crash answered)" -eq 10500
holds 'there were hundreds of crashes' test "$(counted crash failures)" -ge 300
holds 'nothing is given up' test "$(counted crash given_up)" -eq 0

begin 'each of 20 objects ends a copy, which answers at the end of its batch'
ask late crash_late 20 --set reward.0.attempts=1000
expect 0
same late
over late

begin 'a program that ends after each batch'
ask leaves leaves 1
expect 0
same leaves
holds 'that is no failure' test "$(counted leaves failures)" -eq 0

begin 'copies that hang'
ask hang hang 4000 --set reward.0.processes=2 --set reward.0.timeout=1 --set reward.0.attempts=1000
expect 0
same hang
holds 'there were some' test "$(counted hang failures)" -ge 1
over hang

begin 'a copy that leaves out a line'
ask few few 5000 --set reward.0.timeout=1 --set reward.0.attempts=1000
expect 0
same few
holds 'there were some' test "$(counted few failures)" -ge 1

begin 'a copy that closes its output and stays'
ask close close 6000 --set reward.0.attempts=1000
expect 0
same close
over close

begin 'reuse asks nothing twice'
ask reuse good 1 --set sampler.reuse=on
expect 0
same reuse
holds 'there are 81 objects' test "$(stat -c %s "$work/log.reuse/asked")" -le 81

begin 'a command as words, and what run.json says of it'
ask words good 1 "${small[@]}" --set reward.0.command="$build/tests/worker $work/log.words good"
expect 0
holds 'a list' grep -qF '"good"' "$work/words/run.json"
sed -n '/"config": {/,/^  },$/p' "$work/words/run.json" | sed '1s/.*/{/; $s/.*/}/' >"$work/again.yaml"
run "$kac" run "$work/again.yaml" --out "$work/again" --quiet
expect 0
holds 'the same run again' cmp "$work/words/samples.csv" "$work/again/samples.csv"

# ---- several numbers of a line --------------------------------------------------------------

begin 'columns of one worker, with other rewards beside it'
mkdir -p "$work/log.columns"
worker="kind: worker, command: [$build/tests/worker, $work/log.columns, columns]"
config columns "$worker, output: 1}, {name: judge, kind: pwm, file: $models/judge.safetensors, weight: 0.5},
  {name: seven, $worker, output: 0, weight: 0}, {name: eight, $worker, output: 3, weight: 0"
run "$kac" run "$work/columns.yaml" --out "$work/columns" --quiet "${small[@]}"
expect 0
holds 'one process serves all' test "$(lines "$work/log.columns/pids")" -eq 1
config plain "kind: table, file: $models/reward.safetensors}, {name: judge, kind: pwm, file: $models/judge.safetensors, weight: 0.5"
run "$kac" run "$work/plain.yaml" --out "$work/plain" --quiet "${small[@]}"
holds 'the same samples' cmp <(cut -d, -f1-8 "$work/columns/samples.csv") "$work/plain/samples.csv"
holds 'the numbers beside' awk -F, 'NR > 1 && ($9 != 7 || $10 != 8) { exit 1 }' "$work/columns/samples.csv"

begin 'a worker that is only recorded'
mkdir -p "$work/log.recorded"
config recorded "kind: table, file: $models/reward.safetensors}, {name: w, weight: 0, kind: worker, command: [$build/tests/worker, $work/log.recorded, good]"
run "$kac" run "$work/recorded.yaml" --out "$work/recorded" --quiet "${small[@]}"
expect 0
holds 'it says what the table says' awk -F, 'NR > 1 && $7 != $8 { exit 1 }' "$work/recorded/samples.csv"

begin 'more numbers than a line has'
config more "$worker, output: 4"
run "$kac" run "$work/more.yaml" --out "$work/more" --quiet
says 'want 5 numbers or more'
refused 3 more

begin 'one worker, started in two ways'
config ways "$worker, output: 1}, {name: s, $worker, output: 0, batch: 2"
run "$kac" run "$work/ways.yaml" --out "$work/ways" --quiet
says 'must be the same'
refused 2 ways

# ---- what cannot go on ----------------------------------------------------------------------

begin 'a program that is not there'
config nowhere 'kind: worker, command: [./no_such_program]'
run "$kac" run "$work/nowhere.yaml" --out "$work/nowhere" --quiet
says 'reward.0.command: cannot run ./no_such_program: No such file'
refused 2 nowhere

begin 'a program that may not run'
config plain_file "kind: worker, command: [$work/table.yaml]"
run "$kac" run "$work/plain_file.yaml" --out "$work/plain_file" --quiet
says 'Permission denied'
refused 2 plain_file

begin 'no command'
config none 'kind: worker'
run "$kac" run "$work/none.yaml" --out "$work/none" --quiet
says 'reward.0.command: required'
refused 2 none

begin 'a command of lists'
config lists 'kind: worker, command: [[a], b]'
run "$kac" run "$work/lists.yaml" --out "$work/lists" --quiet
says 'lists.yaml:3:'
says 'expected words'
refused 2 lists

begin 'a command where there is no worker'
config file "kind: table, file: $models/reward.safetensors, command: [a]"
run "$kac" run "$work/file.yaml" --out "$work/file" --quiet
says 'kind worker only'
refused 2 file

begin 'a gradient of a worker'
ask gradient good 1 --set sampler.algorithm=tds
says 'does not take probabilities'
refused 2 gradient

begin 'a program that dies at once'
ask dead dead 1 --set reward.0.processes=2
says 'ended with exit code 7 before it had answered anything'
says ' times; the end of its standard error:'
holds 'the line is below, indented' grep -qx 'kac:     no licence' "$work/err"
refused 3 dead
# tried by hand, as the message says, it ends in the same way
hand=$(sed -n 's/^kac: try it: //p' "$work/err")
run bash -c "set -o pipefail; $hand"
expect 7
says 'no licence'

begin 'a program that says much before it dies: the last lines, as they were'
printf '%s\n' 'seq 30 >&2' "printf 'a\\tb \\303\\244\\n\\n' >&2" 'echo "$1" >&2' 'exit 1' >"$work/wordy.sh"
config wordy "kind: worker, command: [sh, $work/wordy.sh, \"it's\"]"
run "$kac" run "$work/wordy.yaml" --out "$work/wordy" --quiet
sed -n 's/^kac:     //p' "$work/err" >"$work/said"
holds '20 lines, and what is no plain text made so' cmp "$work/said" <(seq 14 30; echo 'a b ??'; echo; echo "it's")
says "| sh $work/wordy.sh 'it'\\''s'"
refused 3 wordy


begin 'a program that dies at once, where objects may be given up'
ask dead2 dead 1 --set sampler.on_invalid=worst
says 'ended with exit code 7 before it had answered anything'
refused 3 dead2

begin 'a program that hangs at once'
ask stuck hang 1 --set reward.0.timeout=0.2 --set reward.0.attempts=2
says 'wrote 0 of 1 lines and then nothing for 0.2 s'
says 'flush'
refused 3 stuck

# wrong HABIT TEXT: a line that is no answer, in the middle of the run
wrong() {
    begin "a worker with the habit $1"
    ask "$1" "$1" 30 --set reward.0.processes=2
    says "$2"
    says 'reward.0: `'
    refused 3 "$1"
}
wrong garbage 'answered `Loading the model ... done`; want 1 number or more'
wrong short 'answered ``; want 1 number'
wrong many 'a line that nobody asked for'
wrong long 'a line of more than 4095 characters'

for number in nan inf; do
    begin "a worker that answers $number"
    ask $number $number 30
    says 'step 1, slot'
    says 'on_invalid'
    refused 2 $number
done

begin 'numbers that are none may be the worst'
ask worst nan 30 --set sampler.on_invalid=worst
expect 0
holds 'none is among the samples' awk -F, 'NR > 1 && $5 !~ /^-?[0-9]/ { exit 1 }' "$work/worst/samples.csv"

begin 'where all are none the run says why it has nothing to give'
ask hopeless nan 1 --set sampler.on_invalid=worst "${small[@]}"
expect 2
says 'is forbidden ('
says ': reward.0 (r) is not finite: '
holds 'none is a design' test -e "$work/hopeless/samples.fasta" -a ! -s "$work/hopeless/samples.fasta"
ask doomed nan 1 --set sampler.on_invalid=worst "${small[@]}" --set sampler.on_dead=error
says 'is zero (its objects have reward -inf, or they are invalid)'
refused 2 doomed

begin 'an object that ends every copy'
ask poison poison 1 --set reward.0.attempts=2
says 'ended with exit code 3, 2 times with nothing but ACBA to answer'
says 'the last straw'
says "try it: printf '%s\n' 1 ACBA | $build/tests/worker"
says 'on_invalid'
refused 3 poison

begin 'an object that ends every copy may be given up'
ask spoilt poison 1 --set reward.0.attempts=2 --set sampler.on_invalid=worst --set sampler.reuse=on
expect 0
holds 'it is no sample' awk -F, '$4 == "ACBA" { exit 1 }' "$work/spoilt/samples.csv"
holds 'it is given up' test "$(counted spoilt given_up)" -ge 1

# ---- the end of kac -------------------------------------------------------------------------

# killed NAME HABIT SIGNAL...: kac gets the signals while it waits for a worker
killed() {
    local name=$1 habit=$2 signal pid
    shift 2
    mkdir -p "$work/log.$name"
    config "$name" "kind: worker, processes: 3, command: [$build/tests/worker, $work/log.$name, $habit, '400']"
    set -m # else the shell lets children in the background ignore SIGINT
    "$kac" run "$work/$name.yaml" --set process.steps=100000 --out "$work/$name" --quiet >"$work/out" 2>"$work/err" &
    pid=$!
    set +m
    until [ "$(stat -c %s "$work/log.$name/asked" 2>/dev/null || echo 0)" -ge 1 ] || ! kill -0 "$pid"; do sleep 0.05; done
    code=0
    { # without the shell's words on it
        for signal in "$@"; do
            kill -s "$signal" "$pid"
            sleep 0.1
        done
        wait "$pid" || code=$?
    } 2>/dev/null
}
begin 'kac is stopped'
killed term good TERM
expect 3
says 'stopped at step'
over term

begin 'launchers may say so several times'
killed often slow TERM TERM HUP
expect 3
says 'stopped at step'
holds 'there is a checkpoint' test -n "$(newest "$work/often")"
over often

begin 'kac is stopped twice, while its worker hangs'
killed twice hang INT INT
expect 3
over twice

begin 'kac is killed, while its worker hangs'
killed nine hang KILL
expect 137
over nine

begin 'kac is killed, and its worker has started programs of its own'
killed family family KILL
expect 137
holds 'there are six' test "$(lines "$work/log.family/pids")" -eq 6
over family

begin 'a run ends, and its worker has started programs of its own'
ask kin family 1 "${small[@]}"
expect 0
over kin

# ---- the shipped workers --------------------------------------------------------------------

begin 'tools/workers/template.sh'
run sh tools/workers/template.sh <<<$'2\nACGT\nGGGT\n1\nAT'
expect 0
holds 'what it counts' cmp "$work/out" <(printf '2\n3\n0\n')

begin 'tools/workers/template.py'
if ! command -v python3 >/dev/null; then
    skip 'there is no python3'
else
    run python3 tools/workers/template.py <<<$'2\nACGT\nGGGT\n1\nAT'
    expect 0
    holds 'what it counts' cmp "$work/out" <(printf '0.5\n0.75\n0.0\n')

    begin 'docs/workers.md shows it'
    holds 'line by line' cmp <(sed -n '/^```python$/,/^```$/p' docs/workers.md | sed '1d;$d') tools/workers/template.py

    begin 'tools/workers/torch_reward.py without PyTorch'
    run python3 -I -S tools/workers/torch_reward.py </dev/null
    expect 1
    says 'torch_reward.py needs PyTorch: pip install torch in a virtual environment'
    holds 'it is one line' test "$(lines "$work/err")" -eq 1

    begin 'tools/workers/torch_reward.py'
    if python3 -c 'import torch' 2>/dev/null; then
        run python3 tools/workers/torch_reward.py <<<$'2\nACGTACGT\nGGGTACGT\n1\nACGTACGT'
        expect 0
        holds 'a number each, the same for the same' awk '{ x[NR] = $1 } END { exit NR != 3 || x[1] != x[3] || x[1] == x[2] }' "$work/out"
    else
        skip 'python3 has no PyTorch'
    fi

    begin 'tools/workers/rdkit_properties.py'
    if has_rdkit; then
        run python3 tools/workers/rdkit_properties.py <<<$'4\nCCO\nC(C)(C)(C)(C)C\n\nc1ccccc1'
        expect 0
        holds 'a line each, of five numbers' awk 'NF != 5 { exit 1 } END { exit NR != 4 }' "$work/out"
        holds 'the second and third are none' awk '/^nan nan nan nan 0.0$/ { n++ } END { exit n != 2 }' "$work/out"
        begin 'tools/workers/rdkit_properties.py: properties by name'
        run python3 tools/workers/rdkit_properties.py weight ease sa valid <<<$'1\nc1ccccc1'
        expect 0
        holds 'benzene' awk '$1 != 78.11399999999999 || $2 - (10 - $3) / 9 > 1e-12 || $3 != 1 || $4 != 1 { exit 1 }' "$work/out"
        run python3 tools/workers/rdkit_properties.py qed size </dev/null
        expect 1
        says 'no property size; there are qed, sa, ease, logp, weight, valid'
    else
        run python3 tools/workers/rdkit_properties.py </dev/null
        expect 1
        says 'needs RDKit: apt-get install python3-rdkit, or pip install rdkit in a virtual environment'
    fi
fi

finish
