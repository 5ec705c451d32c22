#!/usr/bin/env bash
# test_docking.sh BUILD -- tools/workers/dock_vina.py: molecules against tests/ring.pdbqt, the same
# number for the same molecule, and nan where there is none.
# shellcheck source=tests/lib.sh disable=SC2016 # dollars are awk's
. "$(dirname "$0")/lib.sh"

worker=tools/workers/dock_vina.py
box=(tests/ring.pdbqt --center 0 0 0 --size 14 14 14)
mkdir "$work/bin"

begin 'what is missing is named, and how to get it'
python=$(command -v python3) || leave 'there is no python3'
run env PATH="$work/bin" "$(python3 -c 'import sys; print(sys.executable)' || echo "$python")" "$worker" "${box[@]}"
expect 1
says 'needs autodock-vina, openbabel, faketime: apt-get install autodock-vina openbabel faketime'

absent=''
for program in vina obabel faketime; do
    command -v "$program" >/dev/null || absent+=" $program"
done
if [ -n "$absent" ]; then
    begin 'docking'
    skip "there is no$absent (apt-get install autodock-vina openbabel faketime)"
    finish
fi

# dock SMILES...: a number for each, in $work/out.
dock() {
    run python3 "$worker" "${box[@]}" < <(printf '%s\n' $# "$@")
}

begin 'a molecule that binds, one that hardly does, and three that have no number'
dock CCO CCNC 'C1CC' '' 'CC.O'
expect 0
holds 'five lines' test "$(lines "$work/out")" -eq 5
holds 'kcal/mol, more for a larger one' awk 'NR == 1 { a = $1 } NR == 2 { exit !(a > 0.5 && $1 > 0.5 && $1 < 3) }' "$work/out"
holds 'none for a broken ring, for nothing, and for two' test "$(sed -n '3,5p' "$work/out" | tr '\n' ' ')" = 'nan nan nan '
says 'dock_vina.py: C1CC: obabel made no structure'
cp "$work/out" "$work/first"

begin 'the same molecule has the same number'
dock CCNC CCO
expect 0
holds 'whatever was asked before' cmp "$work/out" <(sed -n 2p "$work/first"; sed -n 1p "$work/first")

begin 'a structure that takes too long is none'
printf '#!/bin/sh\nexec sleep 60\n' >"$work/bin/obabel"
chmod +x "$work/bin/obabel"
run env PATH="$work/bin:$PATH" python3 "$worker" "${box[@]}" --timeout 0.5 <<<$'1\nCCO'
expect 0
holds 'nan' test "$(cat "$work/out")" = nan
says 'obabel took more than 0.5 seconds'

begin 'a receptor that is none stops it at once'
echo 'ATOM      1  Q   GLY A   1       0.222   2.387  -1.092  0.00  0.00    +0.000 QQ' >"$work/wrong.pdbqt"
run python3 "$worker" "$work/wrong.pdbqt" --center 0 0 0 --size 14 14 14 <<<$'1\nCCO'
expect 1
says 'Atom type QQ is not a valid AutoDock type'
run python3 "$worker" "$work/absent.pdbqt" --center 0 0 0 --size 14 14 14
expect 1
says 'there is no such receptor'

begin 'kac asks it'
"$build/tests/make_models" "$work" || exit 1
cat >"$work/chain.yaml" <<YAML
model: {file: $work/chain.safetensors}
process: {steps: 2}
reward: [{name: affinity, kind: worker, command: [python3, $worker, ${box[0]}, --center, 0, 0, 0, --size, 14, 14, 14]}]
sampler: {algorithm: best_of_n, particles: 2, groups: 2, on_invalid: worst}
output: {likelihood: off}
YAML
run "$kac" run "$work/chain.yaml" --out "$work/chain" --quiet
expect 0
mapfile -t chains < <(tail -n +2 "$work/chain/samples.csv" | cut -d, -f4)
tail -n +2 "$work/chain/samples.csv" | cut -d, -f5 >"$work/rewards"
dock "${chains[@]}"
holds 'the rewards are what it says' awk 'NR == FNR { r[NR] = $1; next }
    { d = $1 - r[FNR]; if (d > 1e-5 || d < -1e-5) exit 1 } END { exit FNR != 2 }' "$work/rewards" "$work/out"

finish
