#!/usr/bin/env bash
# test_plugin.sh BUILD -- shared objects as rewards and denoisers: the samples of the native path,
# and one clear sentence where they are no good.
# shellcheck source=tests/lib.sh disable=SC2016 # dollars are awk's, backquotes Markdown's
. "$(dirname "$0")/lib.sh"

models=$work/models
mkdir "$models"
"$build/tests/make_models" "$models" || exit 1
plugin=$build/tests/plugin_host.so

# config NAME MODEL REWARD...: a toy.
config() {
    local file=$work/$1.yaml model=$2 reward
    shift 2
    {
        echo "model: {$model}"
        echo 'process: {steps: 6}'
        echo 'reward:'
        for reward; do echo "  - {$reward}"; done
        echo 'sampler: {groups: 4, particles: 20}'
        echo 'device: {threads: 1}'
    } >"$file"
}
# ask NAME [ARGUMENT...]
ask() {
    local name=$1
    shift
    run "$kac" run "$work/$name.yaml" --out "$work/$name" --quiet "$@"
}
same() { # NAME NAME: the samples, and the trace without its seconds
    holds "the samples of $1 are those of $2" cmp "$work/$1/samples.csv" "$work/$2/samples.csv"
    local name
    for name in "$1" "$2"; do sed 's/"seconds":[^,}]*//' "$work/$name/trace.jsonl" >"$work/$name/trace"; done
    holds "the trace of $1 is that of $2" cmp "$work/$1/trace" "$work/$2/trace"
}
refused() { # CODE NAME TEXT
    expect "$1"
    says "$3"
    holds 'one sentence' test "$(wc -l <"$work/err")" -eq 1
    holds 'no output' test ! -e "$work/$2"
}

# ---- the native path ---------------------------------------------------------------------------

begin 'the example is the filter of letters'
share=(configs/quickstart.yaml --set process.steps=12 --set sampler.groups=2 --set reward.0.name=r)
run "$kac" run "${share[@]}" --set reward.0.kind=gc --set reward.0.file= --out "$work/gc" --quiet
expect 0
run "$kac" run "${share[@]}" --set reward.0.kind=plugin --set reward.0.file="$build/share.so" --out "$work/share" --quiet
expect 0
holds 'the samples are the same' cmp "$work/share/samples.csv" "$work/gc/samples.csv" # filters count no calls

if command -v python3 >/dev/null; then
    begin 'the example of a denoiser is the Markov chain'
    PYTHONPATH=tools python3 -c 'import pathlib, sys; from make_gmm import save
chain = [0.2 + (0.2 if i == j else 0.0) for i in range(4) for j in range(4)]
save(pathlib.Path(sys.argv[1]), {"initial": ([4], [0.25] * 4), "transition": ([4, 4], chain)},
     {"kac.arch": "markov", "kac.process": "masked", "kac.alphabet": "ACGT"})' "$work/chain.safetensors"
    # unguided: likeliest completions, which guide, are ties here, that rounding decides
    chain=(--set process.length=80 --set process.steps=12 --set sampler.algorithm=pretrained --set sampler.children=1)
    run "$kac" run configs/quickstart.yaml "${chain[@]}" --set model.file="$work/chain.safetensors" --out "$work/chain" --quiet
    expect 0
    run "$kac" run configs/quickstart.yaml "${chain[@]}" --set model.kind=plugin --set model.file="$build/sticky.so" --set model.options=0.2 --out "$work/sticky" --quiet
    expect 0
    holds 'the designs are the same' cmp <(cut -d, -f1-4 "$work/sticky/samples.csv") <(cut -d, -f1-4 "$work/chain/samples.csv")
    holds 'there are 64' test "$(lines "$work/sticky/samples.csv")" -ge 65
fi

table="name: r, kind: table, file: $models/reward.safetensors"
config native "file: $models/denoiser.safetensors" "$table"
config reward "file: $models/denoiser.safetensors" "name: r, kind: plugin, file: $plugin, options: table"
config denoiser "kind: plugin, file: $plugin" "$table"
config both "kind: plugin, file: $plugin" "name: r, kind: plugin, file: $plugin"
begin 'the native path'
ask native
expect 0
for name in reward denoiser both; do
    begin "plug-ins: $name"
    ask "$name"
    expect 0
    same "$name" native
done
begin 'a plug-in of version 1'
config first "kind: plugin, file: $build/tests/plugin_first.so" "name: r, kind: plugin, file: $build/tests/plugin_first.so"
ask first
expect 0
same first native
begin 'a batch of any size'
ask both --set device.batch=3 --set output.dir="$work/small" --out "$work/small"
expect 0
holds 'the samples are the same' cmp "$work/small/samples.csv" "$work/native/samples.csv"

begin 'several outputs and handles'
config outputs "file: $models/denoiser.safetensors" "name: a, kind: plugin, file: $plugin, options: two" \
    "name: b, kind: plugin, file: $plugin, options: two, output: 1, weight: 0" \
    "name: c, kind: plugin, file: $plugin, weight: 0"
ask outputs
expect 0
holds 'b is -a, c is a' awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    $at["a"] != -$at["b"] || $at["a"] != $at["c"] { exit 1 }' "$work/outputs/samples.csv"

begin 'objects as text'
text="kind: plugin, file: $plugin, options: text"
config text "file: $models/denoiser.safetensors" "name: length, $text" "name: dots, $text, output: 1, weight: 0" \
    "name: as, $text, output: 2" "name: molecules, $text, output: 3, weight: 0"
seen() { # NAME: the columns are those of a look at samples.csv
    holds 'it reads what samples.csv shows' awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        { as = gsub("A", "A", $at["object"]); some += as; bad += $at["as"] != as || $at["length"] != 4 || $at["dots"] || $at["molecules"] }
        END { exit !(NR > 4 && some > 0 && bad == 0) }' "$work/$1/samples.csv"
}
ask text
expect 0
seen text

begin 'terms share what is opened with the same options, and nothing else'
config handles "file: $models/denoiser.safetensors" "name: a, kind: plugin, file: $plugin, options: nth one" \
    "name: b, kind: plugin, file: $plugin, options: nth" \
    "name: c, kind: plugin, file: $plugin, options: nth one" \
    "name: d, kind: plugin, file: $plugin, options: nth" \
    "name: e, kind: plugin, file: $plugin" "$table"
ask handles
expect 0
holds 'a is c, b is d, another; e is the table' awk -F, '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    $at["a"] != 0 || $at["c"] != 0 || $at["b"] != 1 || $at["d"] != 1 || $at["e"] != $at["r"] { exit 1 }' \
    "$work/handles/samples.csv"

begin 'a denoiser of vectors'
cat >"$work/vectors.yaml" <<EOF
model: {kind: plugin, file: $plugin, options: vectors}
process: {kind: gaussian, steps: 400}
reward: [{name: r, kind: plugin, file: $plugin, options: vectors}]
sampler: {algorithm: pretrained, groups: 400}
EOF
ask vectors
expect 0
# The data are N(0, 1); the steps take a few hundredths of the variance.
holds 'it samples what it says' awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    { split($at["object"], x, " "); s += x[1] ^ 2 + x[2] ^ 2; n += 2 }
    END { exit !(n == 800 && s / n > 0.8 && s / n < 1.2) }' "$work/vectors/samples.csv"

# ---- on a device ---------------------------------------------------------------------------------

emu=$build/emu
if [ -x "$emu/kac" ]; then
    # Three steps are made one by one: what is replayed would need kernels, and `queue` here has none.
    begin 'three steps of the native path'
    rm -r "$work/native"
    ask native --set process.steps=3
    expect 0
    for way in plugin_host plugin_queue; do
        begin "$way on the emulator"
        config "$way" "kind: plugin, file: $build/tests/$way.so" "name: r, kind: plugin, file: $build/tests/$way.so"
        run "$emu/kac" run "$work/$way.yaml" --out "$work/$way" --quiet --set device.name=cuda:0 --set process.steps=3
        expect 0
        holds 'the samples are the same' cmp "$work/$way/samples.csv" "$work/native/samples.csv"
    done
    begin 'text on the emulator, though there is a queue'
    sed "s|$plugin|$build/tests/plugin_queue.so|" "$work/text.yaml" >"$work/queued.yaml"
    run "$emu/kac" run "$work/queued.yaml" --out "$work/queued" --quiet --set device.name=cuda:0
    expect 0
    seen queued
    begin 'copies for a plug-in on the host, and nothing else, read device memory'
    run env KAC_EMU_GUARD=1 "$emu/kac" run "$work/plugin_host.yaml" --out "$work/guarded" --quiet --set device.name=cuda:0
    expect 0
fi

# ---- what is no good -----------------------------------------------------------------------------

good="file: $models/denoiser.safetensors"
bad() { # NAME CODE TEXT REWARD [MODEL]
    begin "$1"
    config bad "${5:-$good}" "$4"
    rm -rf "$work/bad"
    ask bad
    refused "$2" bad "$3"
}
echo 'not a library' >"$work/text.so"
bad 'no file' 2 "$work/none.so: cannot be read: No such file" "kind: plugin, file: $work/none.so"
bad 'no shared object' 2 "$work/text.so: it is no shared object" "kind: plugin, file: $work/text.so"
bad 'no function' 2 'it has no function kac_plugin_v1' "kind: plugin, file: $build/tests/plugin_other.so"
bad 'another version' 2 'it is built for version 3 of kac_plugin.h, and this kac has 1 to 2' "kind: plugin, file: $build/tests/plugin_later.so"
bad 'it refuses' 2 'it refuses: no licence was found' "kind: plugin, file: $plugin, options: refuse"
bad 'no outputs' 2 'it says it has 0 outputs, want 1 to 4096' "kind: plugin, file: $plugin, options: no outputs"
bad 'an output that it has not' 2 'there is no output 1; it has 1' "kind: plugin, file: $plugin, output: 1"
bad 'letters twice' 2 'its alphabet must be printable letters but , " > ?, none twice' "$table" "kind: plugin, file: $plugin, options: twice"
bad 'no length' 2 'it says its length is -1' "$table" "kind: plugin, file: $plugin, options: long"
bad 'options of another kind' 2 'reward.0.options: goes with kind plugin only' "$table, options: x"
bad 'options of a network' 2 'model.options: goes with model.kind plugin only' "$table" "$good, options: x"
bad 'no file named' 2 'reward.0.file: required, a shared object' 'kind: plugin'
bad 'a plug-in that is called a table' 2 'kac' "kind: table, file: $plugin"
begin 'graphs'
config bad "kind: plugin, file: $plugin" "$table"
ask bad --set process.kind=graph
refused 2 bad 'model.kind: process.kind graph needs a network'
begin 'the example is for sequences'
cat >"$work/bad.yaml" <<EOF
model: {kind: plugin, file: $plugin, options: vectors}
process: {kind: gaussian, steps: 2}
reward: [{name: r, kind: plugin, file: $build/share.so}]
EOF
ask bad
refused 2 bad 'it refuses: it is a reward of sequences'

begin 'the options of the example'
config bad "kind: plugin, file: $build/sticky.so, options: much" "kind: gc"
ask bad
refused 2 bad 'it refuses: it is a denoiser, whose options are a probability below 1, such as 0.5'

begin 'a reward fails'
config fails "$good" "name: r, kind: plugin, file: $plugin, options: fail"
ask fails
expect 3
says "$plugin: it failed to evaluate: the third call is too much"
begin 'a reward is not a number'
config nan "$good" "name: r, kind: plugin, file: $plugin, options: nan"
ask nan
expect 2
says 'plugin_host.so'
begin 'a denoiser gives NaN'
config nan "kind: plugin, file: $plugin, options: nan" "$table"
ask nan
expect 2
says 'plugin_host.so'

# ---- the manual ----------------------------------------------------------------------------------

begin 'docs/plugins.md shows the example'
holds 'line by line' cmp <(sed -n '/^```c$/,/^```$/p' docs/plugins.md | grep -v '^```') <(cat tools/plugins/share.c tools/plugins/sticky.c)

finish
