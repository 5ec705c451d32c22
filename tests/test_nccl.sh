#!/usr/bin/env bash
# test_nccl.sh BUILD -- a group that ranks with GPUs of their own share: NCCL carries it, as a
# stand-in between the processes of this machine, whose GPUs are those of tests/emu in BUILD/emu.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

emu=$build/emu
export KAC_EMU_NAME=own KAC_NCCL=$emu/tests/libnccl_fake.so

begin 'kac devices says which NCCL is here'
run "$emu/kac" devices
expect 0
holds 'its version' grep -qx 'nccl    2.28.9' "$work/out"
FAKE_NCCL_VERSION=21602 run "$emu/kac" devices
expect 0
holds 'one that is too old' grep -q '^nccl    not here: .* is version 2.16; 2.17 or newer' "$work/out"
KAC_NCCL=/nowhere/libnccl.so run "$emu/kac" devices
expect 0
holds 'none' grep -q '^nccl    not here: .*/nowhere/libnccl.so' "$work/out"

begin 'runs over NCCL'
if ! command -v mpirun >/dev/null || [ ! -e "$build/libkac_mpi.so" ]; then
    skip "there is no mpirun, or $build has no libkac_mpi.so"
    finish
fi
"$build/tests/make_models" "$work" || exit 1
mkdir "$work/place"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 # MPI's own

cat >"$work/toy.yaml" <<END
model: {file: $work/denoiser.safetensors}
process: {steps: 5}
reward: [{kind: table, file: $work/reward.safetensors}]
sampler: {algorithm: smc, groups: 1, particles: 17, alpha: 0.3, select: {group: {trigger: {kind: every}}}}
seed: 5
device: {name: "cuda:0", threads: 1}
output: {trace: off}
END

# shared RANKS ARGUMENT...: into $work/place/run.
shared() {
    local ranks=$1
    shift
    rm -rf "$work/place/run" "$work/log"
    run env FAKE_NCCL_LOG="$work/log" mpirun -n "$ranks" "$emu/kac" run "$work/toy.yaml" --ranks mpi \
        --out "$work/place/run" --quiet "$@"
}
# same: the samples are those of one process; over TRANSPORT: what run.json says of it.
same() {
    expect 0
    holds 'the samples are the same' cmp "$work/alone/samples.csv" "$work/place/run/samples.csv"
}
over() {
    holds "over $1" grep -q "\"transport\": \"$1\"\$" "$work/place/run/run.json"
}
# refused: exit code 3, one complaint, nothing left over.
refused() {
    expect 3
    holds 'one rank complains' test "$(grep -c '^kac: ' "$work/err")" -eq 1
    holds 'nothing is left over' test -z "$(ls -A "$work/place")"
}

run "$kac" run "$work/toy.yaml" --set device.name=cpu --out "$work/alone" --quiet
expect 0
for ranks in 2 3 4; do
    begin "one group on $ranks GPUs"
    shared "$ranks" --set job.transport=nccl
    same
    over 'nccl 2.28.9'
    holds 'all of them have taken part' test "$(lines "$work/log")" -eq "$ranks"
    holds 'and got bytes' test "$(grep -c ' 0 bytes' "$work/log")" -eq 0
done

begin 'ranks that share a GPU'
KAC_EMU_NAME=one shared 2
same
over mpi
begin 'and insist'
KAC_EMU_NAME=one shared 2 --set job.transport=nccl
says 'ranks 0 and 1 share a GPU'
refused

begin 'a machine without NCCL'
KAC_NCCL=/nowhere/libnccl.so shared 2
same
over mpi
begin 'MPI is asked for'
shared 2 --set job.transport=mpi
same
over mpi
holds 'NCCL took no part' test ! -e "$work/log"
begin 'a CPU has no NCCL'
shared 2 --set job.transport=nccl --set device.name=cpu
says 'it is no GPU'
refused

begin 'NCCL fails on one rank'
FAKE_NCCL_FAIL=1:4 shared 3
says 'kac: rank 1: nccl: unhandled system error: the network is down'
refused

finish
