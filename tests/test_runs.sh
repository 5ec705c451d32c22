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
        run python3 tools/formula_reward.py "$weights" N=2,O=1 --atoms C,N,O,F --out "$work/formula.safetensors"
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
        sh -c "! grep 'is not reliable' '$work/out' | grep -v 'matters for estimates, not for designs'"
    holds 'the summary names the folder' grep -q "samples in $work/$name" "$work/out"
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

    begin 'groups with nothing else say so'
    run "$kac" run "${tight[@]}" --set reward.0.at_least=16.9 --set sampler.on_dead=error --out "$work/none" --quiet
    expect 2
    says 'its objects are outside reward.N.at_least and at_most'
    sample lost "${tight[@]}" --set reward.0.at_least=16.9
    holds 'run.json counts them' test "$(value forbidden lost)" = 32
    holds 'their reward is -inf' test "$(columns lost 5 | grep -c '^-inf$')" = 32

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

begin 'kac verify: another network is found out'
cp tests/golden/cnn1d_folded.safetensors "$work/other.safetensors"
chmod u+w "$work/other.safetensors"
head -c 4000 /dev/zero | tr '\0' @ | # a thousand of its weights become 3.004
    dd of="$work/other.safetensors" bs=1 conv=notrunc status=none \
        seek=$(($(wc -c <"$work/other.safetensors") - 4000))
run "$kac" verify "$work/other.safetensors" tests/golden/cnn1d_folded_recording.safetensors
expect 2
says 'differs from the recording'

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
cat >"$work/user.c" <<'C'
#include <kac.h>
int main(void)
{
    kac_config *config = NULL;
    if (kac_config_create(&config) != KAC_OK) return 1;
    puts(kac_version());
    kac_config_destroy(config);
    return 0;
}
C
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
    done < <(grep -ohE 'tools/[a-z_]+\.(py|txt)' docs/molecules.md docs/models.md)
    export PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig
    for how in '' --static; do
        # shellcheck disable=SC2046,SC2086 # flags are words
        run "${CC:-gcc}" "$work/user.c" -o "$work/user" \
            $(pkg-config --cflags kac) ${how:+-Wl,-Bstatic} $(pkg-config --libs-only-L --libs-only-l kac) \
            ${how:+-Wl,-Bdynamic} $(pkg-config $how --libs kac)
        expect 0
        run env LD_LIBRARY_PATH="$work/prefix/lib" "$work/user"
        expect 0
        holds 'it knows the version' test "$(cat "$work/out")" = "$(pkg-config --modversion kac)"
    done
fi

finish
