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
small=(--set process.steps=12 --set sampler.groups=2 --set sampler.children=1 --set output.likelihood=off)

# ---- every shipped configuration runs -------------------------------------------------------

"$build/tests/make_models" "$work" || exit 1
for config in configs/*.yaml; do
    begin "$config"
    given=()
    if [ "$config" = configs/utr5_svdd.yaml ]; then # its reward is the user's to convert
        if [ ! -f "$work/optimus5p.safetensors" ]; then
            skip '../shared/data/optimus_5utr is absent'
            continue
        fi
        given=(--set "reward.0.file=$work/optimus5p.safetensors")
    fi
    name=$(basename "$config" .yaml)
    run "$kac" run "$config" "${given[@]}" "${small[@]}" --set sampler.particles=4 --out "$work/$name"
    expect 0
    for file in samples.csv samples.fasta trace.jsonl run.json; do
        holds "$file is there" test -s "$work/$name/$file"
    done
    holds 'the columns come in order' grep -q '^id,group,slot,object,reward,log_weight,' "$work/$name/samples.csv"
    holds 'a trace has a line a step' test "$(lines "$work/$name/trace.jsonl")" -eq 12
    holds 'the summary names the folder' grep -q "samples in $work/$name" "$work/out"
    for key in seed config algorithm properly_weighted log_evidence log_evidence_se groups \
        particles steps evaluations denoiser_saved reward_saved seconds; do
        holds "run.json has $key" grep -q "\"$key\":" "$work/$name/run.json"
    done
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
    for row in 'promoter_smc 8 1' 'promoter_svdd 1 4'; do
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
    for file in bin/kac include/kac.h lib/libkac.a share/kac/configs share/kac/models share/kac/docs; do
        holds "$file is installed" test -e "$work/prefix/$file"
    done
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
