#!/usr/bin/env bash
# test_runs.sh BUILD -- the program end to end: its outputs; the same bytes for any number of
# threads, batch, reuse and instruction set; verify on the recordings; what gets installed.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# sample NAME ARGUMENT...: a small run of a configuration into $work/NAME.
sample() {
    local out=$work/$1
    shift
    run "$kac" run "$@" --out "$out" --quiet
    expect 0
}
same() { # the samples of two runs
    holds "samples.csv of $1 and $2 are the same" cmp "$work/$1/samples.csv" "$work/$2/samples.csv"
}
# shellcheck disable=SC2317 # holds calls it
no_negative() { ! grep -qE '"(denoiser|reward)(_saved)?": *-' "$@"; }
small=(--set process.steps=12 --set sampler.groups=2 --set output.likelihood=off)

# ---- every shipped configuration runs -------------------------------------------------------

"$build/tests/make_models" "$work" || exit 1
for config in configs/*.yaml; do
    begin "$config"
    given=() needs=()
    name=$(basename "$config" .yaml)
    case $name in # what is the user's to convert, and where it comes from
    utr5_svdd) needs=(reward.0.file optimus5p optimus_5utr) ;;
    tis_smc) needs=(reward.0.file tis_efficiency tis_efficiency model.file tis_denoiser tis_efficiency) ;;
    promoter_worker)
        if ! command -v python3 >/dev/null; then
            skip 'there is no python3'
            continue
        fi
        ;;
    zinc_dock_svdd)
        weights=../shared/data/gdss/gdss_zinc250k.safetensors
        if [ ! -f "$weights" ] || ! command -v vina >/dev/null || ! command -v obabel >/dev/null ||
            ! command -v faketime >/dev/null; then
            skip "$weights, vina, obabel or faketime is absent"
            continue
        fi
        given=(--set model.file="$weights" --set process.nodes=6 --set process.steps=4 --set sampler.children=2
            --set 'reward.0.command=python3 tools/workers/dock_vina.py tests/ring.pdbqt --center 0 0 0 --size 14 14 14')
        ;;
    qm9_formula_tds)
        weights=../shared/data/gdss/gdss_qm9.safetensors
        if [ ! -f "$weights" ] || ! command -v python3 >/dev/null; then
            skip "$weights or python3 is absent"
            continue
        fi
        run python3 tools/formula_reward.py "$weights" N=2,O=1 --out "$work/formula.safetensors"
        expect 0
        given=(--set model.file="$weights" --set reward.0.file="$work/formula.safetensors")
        ;;
    zinc_* | qm9_*)
        weights=../shared/data/gdss/gdss_zinc250k.safetensors
        if [[ $name == qm9_* ]]; then weights=../shared/data/gdss/gdss_qm9.safetensors; fi
        if [ ! -f "$weights" ] || ! has_rdkit; then
            skip "$weights or RDKit is absent"
            continue
        fi
        given=(--set model.file="$weights")
        ;;
    gb1_smc) needs=(reward.0.file gb1_fitness gb1_landscape model.file gb1_denoiser gb1_landscape) ;;
    esac
    for ((i = 0; i < ${#needs[@]}; i += 3)); do
        if [ ! -f "$work/${needs[i + 1]}.safetensors" ]; then
            skip "../shared/data/${needs[i + 2]} is absent"
            continue 2
        fi
        given+=(--set "${needs[i]}=$work/${needs[i + 1]}.safetensors")
    done
    run "$kac" run "$config" "${small[@]}" "${given[@]}" --out "$work/$name"
    expect 0
    files=(samples.csv trace.jsonl run.json)
    case $name in
    gmm_*) ;; # vectors have no letters
    zinc_* | qm9_*) files+=(samples.smi samples.sdf) ;;
    *) files+=(samples.fasta) ;;
    esac
    for file in "${files[@]}"; do
        holds "$file is there" test -s "$work/$name/$file"
    done
    holds 'the columns come in order' grep -qE '^id,group,slot,object,reward,log_weight(,|$)' "$work/$name/samples.csv"
    steps=$(sed -n 's/^  "steps": \([0-9]*\),$/\1/p' "$work/$name/run.json")
    holds 'a trace has a line a step' test "$(lines "$work/$name/trace.jsonl")" -eq "$steps"
    holds 'an evidence that is not reliable is no alarm' \
        sh -c "! grep 'is not reliable' '$work/out' | grep -v 'it does not matter for designs'"
    holds 'the summary names the folder' grep -q "samples in $work/$name" "$work/out"
    if grep -q 'alpha: auto' "$config"; then
        says 'kac: pilot step 12/12  '
        holds 'what the pilot found is told' grep -qE '^kac: alpha [0-9.e-]+ \([0-9.]+ nats from q\)$' "$work/err"
    fi
    for key in seed config algorithm properly_weighted log_evidence log_evidence_se groups \
        particles steps evaluations denoiser_saved reward_saved seconds; do
        holds "run.json has $key" grep -q "\"$key\":" "$work/$name/run.json"
    done
    holds 'no count is negative' no_negative "$work/$name/run.json" "$work/$name/trace.jsonl"
done

# ---- one result -----------------------------------------------------------------------------

# invariant NAME ARGUMENT...: the same bytes however the run is computed.
invariant() {
    local name=$1
    shift
    begin "$name: threads"
    OMP_NUM_THREADS=1 sample "$name-1" "$@"
    OMP_NUM_THREADS=2 sample "$name-2" "$@"
    holds 'there are samples' test "$(lines "$work/$name-1/samples.csv")" -gt 1
    same "$name-1" "$name-2"

    begin "$name: batches"
    sample "$name-7" "$@" --set device.batch=7
    sample "$name-1000" "$@" --set device.batch=1000
    same "$name-1" "$name-7"
    same "$name-1" "$name-1000"

    begin "$name: reuse"
    sample "$name-off" "$@" --set sampler.reuse=off
    same "$name-1" "$name-off"

    begin "$name: another seed is another result"
    sample "$name-seed" "$@" --set seed=99
    holds 'it is there' test -s "$work/$name-seed/samples.csv"
    if cmp -s "$work/$name-1/samples.csv" "$work/$name-seed/samples.csv"; then bad+='    the samples are the same'$'\n'; fi
}
# kernels NAME ISA... -- ARGUMENT...: the same bytes with these, where the machine has them.
kernels() {
    local name=$1 isas=() isa
    shift
    while [ "$1" != -- ]; do
        isas+=("$1")
        shift
    done
    shift
    for isa in "${isas[@]}"; do
        begin "$name: $isa kernels"
        if [ "$isa" != portable ] && ! grep -qw "${isa/avx512/avx512bw}" /proc/cpuinfo; then
            skip "this processor has no $isa"
            continue
        fi
        KAC_ISA=$isa sample "$name-$isa" "$@"
        same "$name-1" "$name-$isa"
    done
}

if [ -f models/promoter_denoiser.safetensors ] && [ -f models/promoter_expression.safetensors ]; then
    for row in 'promoter_smc 8 1' 'promoter_svdd 1 4' 'promoter_rerd 3 2' 'promoter_particle_gibbs 3 1'; do
        read -r config particles children <<<"$row"
        shipped=("configs/$config.yaml" "${small[@]}" --set sampler.particles="$particles"
            --set sampler.children="$children")
        invariant "$config" "${shipped[@]}"
        kernels "$config" avx2 avx512 -- "${shipped[@]}"
    done
else
    begin 'the shipped models'
    skip 'they are not here'
fi

# ---- bounds, filters, weights by group ------------------------------------------------------

# value KEY NAME: the number of KEY in run.json of a run, counted calls and not seconds.
value() {
    sed -n "s/^ *\"$1\": \([0-9]*\),\{0,1\}$/\1/p" "$work/$2/run.json" | head -n 1
}
# columns NAME FIELD...: their fields of samples.csv.
columns() {
    local name=$1
    shift
    cut -d, -f"$(IFS=,; echo "$*")" "$work/$name/samples.csv"
}
if [ -f models/promoter_denoiser.safetensors ] && [ -f models/promoter_expression.safetensors ]; then
    tight=(configs/promoter_constrained.yaml --set process.steps=12 --set sampler.groups=8
        --set sampler.particles=16 --set reward.2.at_least=0.3 --set reward.2.at_most=0.5
        --set reward.3.at_most=6 --set "reward.4.motifs=GAATTC,CATG")
    # shellcheck disable=SC2016 # dollars are awk's
    for final in categorical weighted top_k argmax; do
        begin "no design of kind $final is outside its bounds"
        keep=4
        if [ "$final" = weighted ]; then keep=all; fi
        if [ "$final" = argmax ]; then keep=1; fi
        sample "tight-$final" "${tight[@]}" --set sampler.final.kind="$final" --set sampler.final.keep="$keep"
        holds 'none is forbidden' test "$(value forbidden "tight-$final")" = 0
        holds 'there are some' test "$(lines "$work/tight-$final/samples.csv")" -gt 8
        # object, gc, homopolymer, sites; both strands of the motifs are read off the letters
        holds 'gc, runs and motifs are as allowed' awk -F, 'NR > 1 {
            letters = $4; gc = gsub(/[GC]/, "", letters) / length($4)
            if (gc < 0.3 || gc > 0.5 || gc - $9 > 1e-6 || $9 - gc > 1e-6) exit 1
            if ($4 ~ /AAAAAAA|CCCCCCC|GGGGGGG|TTTTTTT/ || $10 > 6) exit 1
            if ($4 ~ /GAATTC|CATG/ || $11 != 0) exit 1
        }' "$work/tight-$final/samples.csv"
    done

    begin 'without the bounds designs are outside, and the columns say so'
    sample loose "${tight[@]}" --set reward.2.at_least=off --set reward.2.at_most=off \
        --set reward.3.at_most=off --set reward.4.at_most=off
    # shellcheck disable=SC2016
    holds 'some are' awk -F, '$9 < 0.3 || $9 > 0.5 || $10 > 6 || $11 > 0 { n++ } END { exit n < 5 }' \
        <(tail -n +2 "$work/loose/samples.csv")
    # shellcheck disable=SC2016
    holds 'sites are counted' awk -F, 'NR > 1 && ($4 ~ /GAATTC|CATG/) != ($11 > 0) { exit 1 }' \
        "$work/loose/samples.csv"

    begin 'a group with nothing else may end the run'
    run "$kac" run "${tight[@]}" --set reward.0.at_least=16.9 --set sampler.on_dead=error --out "$work/none" --quiet
    expect 2
    says 'step 12: every weight of group 0 is zero (its objects are outside the bounds reward.0 (expression) at_least 16.9, '
    says 'sampler.on_dead: freeze goes on; revive tries for other objects'

    begin 'groups that all have nothing else say so'
    run "$kac" run "${tight[@]}" --set reward.0.at_least=16.9 --out "$work/lost"
    expect 2
    says "every object of all 8 groups is forbidden ($work/lost/samples.csv has them): reward.0 (expression) at_least 16.9: 32 of 32"
    says '; sampler.on_dead: revive tries for others'
    says '  value -  ESS 0.00  '
    holds 'run.json counts them' test "$(value forbidden lost)" = 32
    holds 'their reward is -inf' test "$(columns lost 5 | grep -c '^-inf$')" = 32
    holds 'none is a design' test -e "$work/lost/samples.fasta" -a ! -s "$work/lost/samples.fasta"
    run "$kac" run "${tight[@]}" --set reward.0.at_least=16.9 --set sampler.algorithm=svdd_pm --set sampler.children=2 \
        --set sampler.particles=1 --set sampler.final.kind=argmax --set sampler.final.keep=1 --out "$work/lost_pm" --quiet
    expect 2
    says 'every object of all 8 groups is forbidden'
    holds 'revive is no way out there' test "$(grep -c revive "$work/err")" = 0

    begin 'groups with nothing else do not end the run'
    run "$kac" run "${tight[@]}" --set reward.2.at_most=0.4 --set sampler.particles=4 --out "$work/some"
    expect 0
    dead=$(value forbidden some)
    holds 'some are forbidden' test "$dead" -gt 0 -a "$dead" -lt 32
    holds 'that is told' grep -q "^$dead of them, of [1-7] groups*, are forbidden (reward -inf in samples.csv) and left out of samples.fasta: .*reward.2 (gc) at_most 0.4: " "$work/out"
    holds 'the others are designs' test "$(grep -c '^>' "$work/some/samples.fasta")" = $((32 - dead))
    holds 'none of them is forbidden' test "$(grep -c 'inf' "$work/some/samples.fasta")" = 0
    holds 'all are in the table' test "$(columns some 5 | grep -c '^-inf$')" = "$dead"
    # shellcheck disable=SC2016
    holds 'the summary counts them' awk -v dead="$dead" '$1 == "smc" && $11 != dead { exit 1 }' "$work/out"

    invariant constrained "${tight[@]}"

    revived=(configs/promoter_revive.yaml --set process.steps=12 --set sampler.groups=24
        --set reward.2.at_most=0.5 --set sampler.revive.levels=6)
    begin 'groups that would be lost are tried for again'
    sample frozen "${revived[@]}" --set sampler.on_dead=freeze
    sample revived "${revived[@]}"
    holds 'some would be lost' test "$(value forbidden frozen)" -gt 0
    holds 'none is' test "$(value forbidden revived)" = 0
    holds 'run.json says so' test "$(value groups_dead revived)" = 0
    holds 'and counts six alive of each group' test "$(value alive revived)" = 144
    holds 'there are seven steps' test "$(lines "$work/revived/trace.jsonl")" = 7
    holds 'the last has the tries' test "$(grep -o '"tries":[0-9]*' "$work/revived/trace.jsonl")" = \
        "\"tries\":$(value tries revived)"
    holds 'the others none' test "$(grep -c tries "$work/revived/trace.jsonl")" = 1
    invariant revived "${revived[@]}"

    begin 'a file is asked once, however many terms read it'
    sample once "${tight[@]}"
    sample twice "${tight[@]}" --set reward.5.file=models/promoter_expression.safetensors \
        --set reward.5.name=again --set reward.5.weight=0 --set reward.5.at_least=-100
    holds 'the designs are the same' cmp <(columns once 4 5 6) <(columns twice 4 5 6)
    holds 'the calls are the same' test "$(value reward once)" = "$(value reward twice)"
    holds 'they are counted' test "$(value reward once)" -gt 50

    begin 'weights by group: what a group gets moves with its weight'
    sample pareto configs/promoter_pareto.yaml --set process.steps=24 --set sampler.groups=32 \
        --set sampler.children=5 --set reward.0.weights=1,0.5,0 --set reward.1.weights=0,0.5,1
    sample front configs/promoter_pareto.yaml --set process.steps=24 --set sampler.groups=32 \
        --set sampler.children=5 --set reward.0.weights=1:0 --set reward.1.weights=0:1
    for name in pareto front; do
        # group, reward, expression, gc; desirabilities are expression / 17 and (gc - 0.3) / 0.2
        # shellcheck disable=SC2016
        holds "$name: expression falls and gc rises" awk -F, 'NR > 1 && $2 < 10 { e += $7; g += $8; n++ }
            NR > 1 && $2 >= 22 { e -= $7; g -= $8; n-- } END { exit !(n == 0 && e / 10 > 1 && g / 10 < -0.03) }' \
            "$work/$name/samples.csv"
    done
    # shellcheck disable=SC2016
    holds 'the reward is by the weights of the group' awk -F, 'function d(x) { return x < 0 ? 0 : x > 1 ? 1 : x }
        NR > 1 { w = 1 - $2 / 31; r = w * d($7 / 17) + (1 - w) * d(($8 - 0.3) / 0.2)
            if (r - $5 > 1e-5 || $5 - r > 1e-5) exit 1 }' "$work/front/samples.csv"
    holds 'three targets' test "$(grep -c '"groups": \[' "$work/pareto/run.json")" -eq 3
    holds 'one for each group' test "$(grep -c '"groups": \[' "$work/front/run.json")" -eq 32

    begin 'an evidence for each target'
    sample targets configs/promoter_smc.yaml --set process.steps=12 --set sampler.groups=6 \
        --set sampler.alpha=2 --set reward.0.weights=0,1,0 --set output.likelihood=off
    run tr -d ' \n' <"$work/targets/run.json"
    number='-\?[0-9.e-]*'
    holds 'two numbers, and two errors' grep -q "\"log_evidence\":\[$number,$number\],\"log_evidence_se\":\[$number,$number\]" "$work/out"
    holds 'the groups of each' grep -q '"groups":\[0,1,4,5\]' "$work/out"
else
    begin 'bounds and weights by group'
    skip 'the shipped models are not here'
fi

cat >"$work/toy.yaml" <<YAML
model: {file: tests/golden/cnn1d_folded.safetensors}
process: {steps: 12}
reward: [{file: tests/golden/convgru_plain.safetensors}]
sampler: {algorithm: smc, alpha: 0.05, groups: 2, particles: 6, value: {estimate: soft}}
YAML
invariant toy "$work/toy.yaml"
kernels toy portable avx2 avx512 -- "$work/toy.yaml"

# ---- trajectories ---------------------------------------------------------------------------

begin '--record: the same samples, and the same record for any batch'
sample record-1 "$work/toy.yaml" --record "$work/paths-1" --record-every 5
sample record-2 "$work/toy.yaml" --record "$work/paths-2" --record-every 5 --set device.batch=7
same toy-1 record-1
holds 'the records are the same' cmp "$work"/paths-[12]/trajectories.safetensors
run "$kac" inspect "$work/paths-1/trajectories.safetensors"
expect 0
holds 'it has the levels 12, 7, 2 and 0' grep -qE '^x +U8 +\[12, 4, 50\]$' "$work/out"
holds 'it says what was sampled' grep -qx 'kac.algorithm: smc' "$work/out"

begin '--record-every: more steps than a run has leave the first level and the last'
sample record-all "$work/toy.yaml" --record "$work/paths-all" --record-every 9223372036854775807
same toy-1 record-all
run "$kac" inspect "$work/paths-all/trajectories.safetensors"
holds 'there are two' grep -qE '^x +U8 +\[12, 2, 50\]$' "$work/out"

begin '--record: what the reward is'
graded='{kind: gc, weights: "0.5,3", low: 0.25, high: 0.5}'
printf '%s\n' "model: {file: models/promoter_denoiser.safetensors}" 'process: {steps: 4}' 'sampler: {groups: 2, particles: 2}' \
    "reward: [{file: models/promoter_expression.safetensors}, $graded, {kind: gc, name: c, weight: 0, at_least: 0}, {kind: gc, name: d, weight: 0}]" >"$work/terms.yaml"
a='1*models/promoter_expression.safetensors' b='(0.5,3)*gc[low 0.25, high 0.5]' c='0*c[at_least 0]'
for said in "$a + $b + $c" "min($a, $b, $c)" "lower_bound($a, $b, $c, kappa 2)"; do
    combine=${said%%(*}
    if [ "$said" = "$a + $b + $c" ]; then combine=sum; fi
    sample "terms-$combine" "$work/terms.yaml" --record "$work/paths-$combine" --set objective.combine="$combine" --set objective.kappa=2
    run "$kac" inspect "$work/paths-$combine/trajectories.safetensors"
    holds "$combine" grep -qxF "kac.reward: $said" "$work/out"
done

# ---- the other commands ---------------------------------------------------------------------

for recording in tests/golden/*_recording.safetensors; do
    begin "kac verify: $(basename "$recording" _recording.safetensors)"
    run "$kac" verify "${recording/_recording/}" "$recording"
    expect 0
done

begin 'a file that is not there: which key names it, and where it was looked for'
run sh -c "cd '$work' && '$kac' run '$root/configs/quickstart.yaml' --out '$work/nothing'"
expect 2
says 'kac: model.file: models/promoter_denoiser.safetensors: cannot be read: No such file'
says "relative paths begin where kac is started, here $(cd "$work" && pwd -P)"
run "$kac" run configs/quickstart.yaml --set model.file=README.md --set 'reward.0.file=~/none.safetensors' --out "$work/nothing"
expect 2
says 'kac: reward.0.file: ~/none.safetensors: cannot be read: No such file or directory; ~ is not expanded'

begin 'a template that is a letter short'
short=$(printf '?%.0s' {1..49})
run "$kac" run "$work/toy.yaml" --set "process.template=$short" --out "$work/nothing"
expect 2
says "kac: process.template: 49 characters, but the model's sequences have 50; process.length 49 if that is meant"
sed "s/^process: .*/process:\n  steps: 12\n  template: \"$short\"/" "$work/toy.yaml" >"$work/short.yaml"
run "$kac" run "$work/short.yaml" --out "$work/nothing"
expect 2
says "49 characters ($work/short.yaml:4), but"
sample short "$work/short.yaml" --set process.length=49

begin 'what a model is not'
printf '0.1,0.2\n0.3,0.4\n' >"$work/table.csv"
run "$kac" run configs/quickstart.yaml --set model.file="$work/table.csv" --out "$work/nothing"
expect 2
says 'table.csv: not a safetensors file'
says 'docs/models.md'
run "$kac" inspect "$build/tests/plugin_first.so"
expect 2
says 'it is a shared object, which a plug-in is (docs/plugins.md)'

begin 'letters in lower case'
sample lower "$work/toy.yaml" --set process.template="acgt$(printf '?%.0s' {1..46})" --set reward.0.kind=motif \
    --set reward.0.file= --set reward.0.motifs=acgt --set sampler.value.estimate=argmax
sample upper "$work/toy.yaml" --set process.template="ACGT$(printf '?%.0s' {1..46})" --set reward.0.kind=motif \
    --set reward.0.file= --set reward.0.motifs=ACGT --set sampler.value.estimate=argmax
holds 'are those in upper case' cmp "$work/lower/samples.csv" "$work/upper/samples.csv"
holds 'and are there' grep -q ',ACGT' "$work/lower/samples.csv"

begin 'how keys are set'
for given in '--seed 3' '--seed=3'; do
    # shellcheck disable=SC2086 # words on purpose
    run "$kac" run configs/quickstart.yaml $given
    expect 2
    says 'kac: run: unknown option --seed; keys are set so: --set seed=3'
done
run "$kac" run configs/quickstart.yaml --reward.0.weight 2
expect 2
says 'keys are set so: --set reward.0.weight=2'
run "$kac" run configs/quickstart.yaml --quite
expect 2
says 'did you mean --quiet?'
for given in 'sampler.groups 2' 'sampler.groups = 2' '=2'; do
    # shellcheck disable=SC2086
    run "$kac" run configs/quickstart.yaml --set $given
    expect 2
    says "kac: --set ${given%% *}: want KEY=VALUE without blanks"
done

begin 'kac explain: a row leads to its page, a value to the keys that have it'
run "$kac" explain svdd_pm
expect 0
holds 'where more is' grep -qx '  more: docs/algorithms.md#svdd_pm' "$work/out"
run "$kac" explain gc
expect 0
holds 'the kind of a term' test "$(sed -n 2p "$work/out")" = reward.N.kind
run "$kac" explain ess
expect 0
holds 'several keys' test "$(grep -c '^ess is a value of$' "$work/out")" -eq 3

begin 'another row on a file with the children of its own'
run "$kac" run configs/quickstart.yaml --set sampler.algorithm=smc --out "$work/nothing"
expect 2
says "kac: sampler.children: 9 (configs/quickstart.yaml:$(grep -n children: configs/quickstart.yaml | cut -d: -f1)), but smc takes 1: add --set sampler.children=1, or leave children out of the file"

begin 'run.json says when, where and by which command, and of which files'
cp tests/golden/cnn1d_folded.safetensors "$work/copy.safetensors"
chmod u+w "$work/copy.safetensors"
sample said "$work/toy.yaml" --set "reward.0.name=a" --set checkpoint.seconds=off
sample copied "$work/toy.yaml" --set "model.file=$work/copy.safetensors"
run cat "$work/said/run.json"
holds 'the date, in UTC' grep -qE '"date": "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]Z"' "$work/out"
holds 'the folder' grep -qF "\"folder\": \"$root\"" "$work/out"
holds 'the command' grep -qF "\"command\": \"$kac run $work/toy.yaml --set reward.0.name=a --set checkpoint.seconds=off --out $work/said --quiet\"" "$work/out"
digest() { # FILE NAME: its digest in run.json of a run
    sed -n "s|^ *\"$1\": \"\([0-9a-f]\{16\}\)\",*\$|\1|p" "$work/$2/run.json"
}
holds 'the model' test -n "$(digest tests/golden/cnn1d_folded.safetensors said)"
holds 'its copy is the same' test "$(digest tests/golden/cnn1d_folded.safetensors said)" = "$(digest "$work/copy.safetensors" copied)"
holds 'the reward is another' test "$(digest tests/golden/convgru_plain.safetensors said | tr -dc 0-9a-f | wc -c)" = 16
sample quoted "$work/toy.yaml" --set "output.dir=it's"
holds 'words in quotes where they must be' grep -qF -e "--set 'output.dir=it'\\\\''s' --out" "$work/quoted/run.json"

begin '--dry-run: what would be done, and nothing is'
run "$kac" run "$work/toy.yaml" --set reward.1.kind=gc --set reward.1.weight=0 --set reward.1.at_most=0.7 --set sampler.alpha=auto \
    --record "$work/dry.paths" --out "$work/dry" --dry-run
expect 0
for line in 'algorithm   smc: ' 'alpha       auto: ' 'population  2 groups x 6 particles x 1 child' 'steps       12' \
    'objects     50 sites of ACGT' 'denoiser    tests/golden/cnn1d_folded.safetensors' \
    'reward 0    convgru_plain: weight 1' 'reward 1    gc: weight 0, at most 0.7' \
    'files       samples.csv, samples.fasta, trace.jsonl, run.json' "output      $work/dry, trajectories in $work/dry.paths"; do
    holds "$line" grep -qF "$line" "$work/out"
done
holds 'nothing was made' test ! -e "$work/dry" -a ! -e "$work/dry.paths"
holds 'nor beside it' test -z "$(find "$work" -maxdepth 1 -name '.*' ! -path "$work")"
most=$(sed -n 's/^calls       at most \([0-9]*\) of the denoiser.*/\1/p' "$work/out")
made=$(grep -m 1 '"denoiser": [0-9]*,' "$work/toy-off/run.json" | tr -dc 0-9)
holds "without reuse a run takes the $most calls, not $made" test "$most" = "$made"
run "$kac" run "$work/toy.yaml" --out "$work/toy-1" --dry-run
expect 2
says 'exists; choose another --out'
run "$kac" run "$work/toy.yaml" --dry-run
expect 0
holds 'the folder may come later' grep -qF 'output      --out DIR will say where' "$work/out"
run "$kac" run "$work/toy.yaml" --record "$work/dry/paths" --out "$work/dry" --dry-run
expect 2
says '--record'
run "$kac" run "$work/toy.yaml" --set sampler.children=3 --out "$work/dry" --dry-run
expect 2
says 'sampler.children: 3, but smc takes 1'

begin 'kac verify: another network is found out'
cp tests/golden/cnn1d_folded.safetensors "$work/other.safetensors"
chmod u+w "$work/other.safetensors"
head -c 4000 /dev/zero | tr '\0' @ | # a thousand of its weights become 3.004
    dd of="$work/other.safetensors" bs=1 conv=notrunc status=none \
        seek=$(($(wc -c <"$work/other.safetensors") - 4000))
run "$kac" verify "$work/other.safetensors" tests/golden/cnn1d_folded_recording.safetensors
expect 2
says 'differs from the recording'

begin 'a narrow terminal shows whole figures'
if command -v script >/dev/null; then
    run env TERM=xterm script -qec "stty cols 60; '$kac' run '$work/toy.yaml' --out '$work/narrow'" /dev/null
    expect 0
    tr '\r' '\n' <"$work/out" | sed -n 's/\x1b\[K$//; /^\[[#.]*\] /p' >"$work/shown"
    holds 'there is a bar' grep -qF '[####################] step' "$work/shown"
    holds 'it ends with the value' test "$(grep -cvE '^\[[#.]{20}\] step [0-9]+/[0-9]+  [0-9:-]+ left  value [0-9.e+-]+$' "$work/shown")" = 0
else
    skip 'there is no script'
fi

begin 'progress counts the particles that a budget leaves'
run "$kac" run configs/quickstart.yaml --set process.steps=4 --set sampler.groups=1000000 --set output.likelihood=off \
    --set budget.denoiser=130 --out "$work/left"
expect 0
says 'step 4/4'
holds 'not millions a second' test "$(grep -c '[MGT] particle steps/s' "$work/err")" -eq 0

begin 'kac compare'
run "$kac" compare "$work/toy-1" "$work/toy-2"
expect 0
holds 'a row a run' test "$(grep -c '^smc' "$work/out")" -eq 2

run "$kac" compare "$work/nothing"
expect 2
says "$work/nothing: it has no run.json, so it is no complete run"
holds 'no table begins' test ! -s "$work/out"

begin 'kac compare heads the recorded reward with its name'
sample judged "$work/toy.yaml" --set reward.1.file=tests/golden/convgru_plain.safetensors \
    --set reward.1.weight=0 --set reward.1.name=ease
run "$kac" compare "$work/toy-1" "$work/judged"
expect 0
holds 'its name' grep -qE '^ +denoiser calls +guiding reward +ease +$' "$work/out"

begin 'rewards whose files are called as other columns are'
cp "$work/judge.safetensors" "$work/group.safetensors"
reward="{file: $work/reward.safetensors, kind: table}, {file: $work/group.safetensors, kind: pwm}, {name: log, file: $work/judge.safetensors, kind: pwm}"
printf '%s\n' "model: {file: $work/denoiser.safetensors}" "reward: [$reward]" 'process: {steps: 4}' 'sampler: {groups: 2}' >"$work/columns.yaml"
sample columns "$work/columns.yaml" --record "$work/columns.paths"
holds 'no two columns have one name' test "$(head -n 1 "$work/columns/samples.csv")" = id,group,slot,object,reward,log_weight,reward_term,group_term,log
holds 'nor terms in run.json' grep -q '"name": "group_term"' "$work/columns/run.json"
run "$kac" inspect "$work/columns.paths/trajectories.safetensors"
holds 'nor in a record' grep -q 'reward_term,group_term,log' "$work/out"

begin 'kac explain --all'
run "$kac" explain --all
expect 0
holds 'it has the keys' grep -q 'sampler.alpha' "$work/out"
if [ -f docs/config.md ]; then
    holds 'docs/config.md is what it prints' cmp "$work/out" docs/config.md
fi

begin 'kac inspect, devices, help, version'
for command in 'inspect tests/golden/cnn1d_folded.safetensors' devices help --version --help; do
    # shellcheck disable=SC2086 # words on purpose
    run "$kac" $command
    expect 0
    holds "kac $command says something" test -s "$work/out"
done

# ---- the libraries and what is installed ----------------------------------------------------

begin 'libkac.so exports the public API and nothing else'
library=$(echo "$build"/libkac.so.*)
nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | sort >"$work/exported"
sed -n 's/^KAC_API .*\(kac_[a-z_]*\)(.*/\1/p' include/kac.h | sort >"$work/declared"
run diff "$work/declared" "$work/exported"
expect 0
holds 'there are some' test -s "$work/declared"

begin 'the libraries of a GPU and of ranks are installed where they are built'
run make -n install BUILD="$build" MODE=release CUDA=1 NVCC=nvcc MPI=1 MPICC=mpicc PREFIX="$work/prefix"
expect 0
holds 'both go to lib' grep -qE "libkac_mpi.so .*libkac_cuda.so .*$work/prefix/lib'?\$" "$work/out"

begin 'a program builds against what is installed'
if ! command -v pkg-config >/dev/null; then
    skip 'no pkg-config'
elif [ "$(basename "$build")" = asan ]; then
    skip 'a library with sanitizers wants a program with them'
else
    run make install BUILD="$build" PREFIX="$work/prefix"
    expect 0
    for file in bin/kac include/kac.h lib/libkac.a share/kac/configs share/kac/models share/kac/docs \
        share/kac/tools/workers/template.py; do
        holds "$file is installed" test -e "$work/prefix/$file"
    done
    while read -r file; do
        holds "$file, which the manual names, is installed" test -e "$work/prefix/share/kac/$file"
    done < <(grep -ohE 'tools/([a-z]+/)?[a-z0-9_]+\.(py|txt|sh|c|cc)' docs/*.md configs/*.yaml | sort -u)
    for page in "$work/prefix"/share/kac/{docs,models,tools}/*.md; do
        while read -r link; do
            holds "the link $link of $page leads to a file" test -e "$(dirname "$page")/$link"
        done < <(grep -ohE '\]\([^)#]+' "$page" | sed 's/^](//' | grep -vE '^https?:')
    done
    export PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig
    few=(sampler.groups=8 process.steps=32)
    "$kac" run configs/quickstart.yaml "${few[@]/#/--set=}" --out "$work/designs" --quiet
    for how in '' --static; do
        # shellcheck disable=SC2046,SC2086 # flags are words
        run "${CC:-gcc}" -Wall -Wextra -Werror "$work/prefix/share/kac/tools/design.c" -o "$work/design" \
            $(pkg-config --cflags kac) ${how:+-Wl,-Bstatic} $(pkg-config --libs-only-L --libs-only-l kac) \
            ${how:+-Wl,-Bdynamic} $(pkg-config $how --libs kac)
        expect 0
        run env LD_LIBRARY_PATH="$work/prefix/lib" "$work/design" configs/quickstart.yaml "${few[@]}"
        expect 0
        holds 'its designs are those of kac run' cmp <(cut -f2 "$work/out") <(cut -d, -f4 "$work/designs/samples.csv" | sed 1d)
        run env LD_LIBRARY_PATH="$work/prefix/lib" "$work/design" configs/quickstart.yaml sampler.groups=0
        expect 1
        says 'invalid argument: sampler.groups: '
    done
    # shellcheck disable=SC2046 # flags are words
    run "${CC:-gcc}" tools/design.c -o "$work/design" $(pkg-config --cflags --libs kac) -Wl,-rpath,"$(pkg-config --variable=libdir kac)"
    run "$work/design"
    expect 2
    says 'usage: '
    holds 'the program and pkg-config agree on the version' test "kac $(pkg-config --modversion kac)" = "$("$work/prefix/bin/kac" version | head -n 1 | cut -d' ' -f1,2)"

    begin 'docs/api.md shows that program'
    # shellcheck disable=SC2016 # backquotes are Markdown's
    holds 'line by line' cmp <(sed -n '/^```c$/,/^```$/p' docs/api.md | sed '1d;$d') tools/design.c
fi

finish
