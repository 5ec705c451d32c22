#!/usr/bin/env bash
# test_validate.sh BUILD: the ladder holds, says so in both forms, and can fail.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

begin 'kac validate --level quick'
run "$kac" validate --level quick --json "$work/validate.json"
expect 0
holds 'a line a check' test "$(grep -c ' holds$' "$work/out")" -ge 50
holds 'none fails' sh -c "! grep -q FAILS '$work/out'"
holds 'the last line counts them' grep -q 'checks, 0 failed; seed 1; a right sampler fails' "$work/out"
holds 'the JSON says it holds' grep -q '"holds": true,' "$work/validate.json"
holds 'with the false-alarm rate' grep -q '"false_alarm": ' "$work/validate.json"
holds 'and a line for each check' test "$(grep -c '"statistic": ' "$work/validate.json")" -eq \
    "$(grep -cE ' (holds|FAILS)' "$work/out")"

begin 'a part of it, with other random numbers'
run "$kac" validate --only nested --seed 5 --device cpu
expect 0
holds 'only those' test "$(grep -c ' holds$' "$work/out")" -lt 10
holds 'the seed is said' grep -q '; seed 5;' "$work/out"

begin 'nothing to check is no success'
run "$kac" validate --only 'no such check'
expect 2
says 'validate: --only no such check: no check has that in its name'
holds 'no table begins' test ! -s "$work/out"

begin 'a device that cannot be had is no fault of the sampler'
run "$kac" validate --only nested --device cuda:77
expect 3
says 'cuda:77'
holds 'no table begins' test ! -s "$work/out"
KAC_DEVICE=cuda:77 run "$kac" validate --only nested
expect 3

begin 'stopped: its models do not stay'
mkdir "$work/scratch"
export TMPDIR=$work/scratch
start validate --level full
unset TMPDIR
# shellcheck disable=SC2317 # await calls it
has_models() { test "$(find "$work/scratch" -name '*.safetensors' | wc -l)" -ge 5; }
await has_models
kill -INT "$pid"
ended
expect 3
says 'validate: stopped; some checks were left out'
holds 'nothing is left' test -z "$(ls -A "$work/scratch")"

begin 'mistakes'
run "$kac" validate --level slow
expect 2
says 'validate: --level slow: want quick or full'
run "$kac" validate --seed -1
expect 2
says 'validate: --seed -1: want an integer from 0 to'
run "$kac" validate --json "$work/no/such/folder.json" --only nested
expect 3
says 'cannot be written'
run env TMPDIR="$work/absent" "$kac" validate --only nested
expect 3
says 'no folder for its models'

finish
