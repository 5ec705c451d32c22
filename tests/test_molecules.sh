#!/usr/bin/env bash
# test_molecules.sh BUILD -- molecules end to end: what a run leaves, what workers read, and that
# RDKit and the published procedure agree with what kac made of graphs.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

"$build/tests/make_models" "$work" || exit 1

# A worker that answers the length of a SMILES and whether it is in several pieces.
cat >"$work/length.sh" <<'SH'
#!/bin/sh
while read -r count; do
    while [ "$count" -gt 0 ]; do
        read -r smiles
        case $smiles in *.*) echo "${#smiles} 1" ;; *) echo "${#smiles} 0" ;; esac
        count=$((count - 1))
    done
done
SH
chmod +x "$work/length.sh"
cat >"$work/molecules.yaml" <<YAML
model: {file: $work/molecules.safetensors}
process: {kind: graph, steps: 40}
reward:
  - {name: length, kind: worker, command: [$work/length.sh], output: 0}
  - {name: pieces, kind: worker, command: [$work/length.sh], output: 1, weight: 0}
sampler: {algorithm: smc, groups: 8, particles: 4, alpha: 2}
YAML

# sample NAME ARGUMENT...: a run of it into $work/NAME.
sample() {
    local out=$work/$1
    shift
    run "$kac" run "$work/molecules.yaml" "$@" --out "$out" --quiet
    expect 0
}
objects() { # objects NAME: the column of samples.csv
    tail -n +2 "$work/$1/samples.csv" | cut -d, -f4
}

# ---- files ----------------------------------------------------------------------------------

begin 'a run leaves SMILES and SDF'
sample plain
holds 'it has samples' test "$(lines "$work/plain/samples.csv")" -eq 33
holds 'they are SMILES' test "$(objects plain | grep -cE '^[][CNOH+=#()0-9]+$')" -eq 32
holds 'several' test "$(objects plain | sort -u | wc -l)" -gt 3
holds 'all are in one piece' test "$(objects plain | grep -c '[.]')" -eq 0
holds 'samples.smi has them too, with their ids' cmp <(objects plain | awk '{ print $0 "\t" NR - 1 }') "$work/plain/samples.smi"
holds 'samples.sdf has a record each' test "$(grep -c '^\$\$\$\$$' "$work/plain/samples.sdf")" -eq 32
holds 'with the SMILES' cmp <(objects plain) <(grep -A 1 '^> <smiles>' "$work/plain/samples.sdf" | grep -v '^>\|^--')
for name in length reward log_weight group; do
    holds "and $name" test "$(grep -c "^> <$name>\$" "$work/plain/samples.sdf")" -eq 32
done
holds 'there is no samples.fasta' test ! -e "$work/plain/samples.fasta"
# shellcheck disable=SC2016 # dollars are awk's
holds 'the worker has read what samples.csv shows' awk -F, 'NR > 1 && ($7 != length($4) || $8 != 0) { exit 1 }' "$work/plain/samples.csv"

begin 'a forbidden molecule is in the table alone'
run "$kac" run "$work/molecules.yaml" --set reward.0.weight=1 --set reward.0.at_least=6 --set sampler.particles=2 --out "$work/tight"
expect 0
forbidden=$(grep -c ',-inf,' "$work/tight/samples.csv")
allowed=$(objects tight | awk 'length($0) >= 6' | wc -l)
holds 'there are some of both' test "$forbidden" -gt 0 -a "$allowed" -gt 0
holds 'samples.smi has the others' test "$(lines "$work/tight/samples.smi")" -eq "$allowed"
# shellcheck disable=SC2016
holds 'and none that is too short' awk 'length($1) < 6 { exit 1 }' "$work/tight/samples.smi"
holds 'so has samples.sdf' test "$(grep -c '^\$\$\$\$$' "$work/tight/samples.sdf")" -eq "$allowed"
holds 'it is told' grep -qE "^$forbidden of them, of [0-9]+ groups?, (is|are) forbidden \(reward -inf in samples.csv\) and left out of samples.smi and .sdf: reward.0 \(length\) at_least 6: $forbidden of $forbidden\$" "$work/out"

begin 'the same bytes however it is computed'
sample other --set device.batch=7 --set sampler.reuse=off --set reward.0.processes=3 --set reward.1.processes=3
for file in samples.csv samples.smi samples.sdf; do
    holds "$file" cmp "$work/plain/$file" "$work/other/$file"
done

begin 'a plug-in reads what a worker reads'
text="kind: plugin, file: $build/tests/plugin_host.so, options: text"
sed -e "s|kind: worker, command: .*, output: 0|$text, output: 0|" -e "s|kind: worker, command: .*, output: 1|$text, output: 1|" \
    "$work/molecules.yaml" >"$work/text.yaml"
holds 'there is no worker' test "$(grep -c worker "$work/text.yaml")" -eq 0
for way in '' '--set process.correction=none' '--set device.batch=3'; do
    read -ra words <<<"$way"
    for config in molecules text; do
        run "$kac" run "$work/$config.yaml" "${words[@]}" --out "$work/$config-text" --quiet --force
        expect 0
    done
    holds "the samples are the same $way" cmp "$work/molecules-text/samples.csv" "$work/text-text/samples.csv"
done
run "$kac" run "$work/text.yaml" --set reward.1.output=3 --out "$work/known" --quiet
expect 0
# shellcheck disable=SC2016
holds 'it knows that they are molecules' awk -F, 'NR > 1 && $8 != 1 { exit 1 }' "$work/known/samples.csv"
run "$kac" run "$work/text.yaml" --set process.atoms=none --set reward.1.output=3 --out "$work/unknown" --quiet
expect 0
# shellcheck disable=SC2016
holds 'and that numbers are none' awk -F, 'NR > 1 && ($8 != 0 || $7 != length($4)) { exit 1 }' "$work/unknown/samples.csv"

begin 'without correction there are molecules in pieces'
sample raw --set process.correction=none --set sampler.algorithm=pretrained --set sampler.groups=200
holds 'in pieces' test "$(objects raw | grep -c '[.]')" -gt 10
# shellcheck disable=SC2016
holds 'the worker sees them' awk -F, 'NR > 1 && $8 != ($4 ~ /[.]/) { exit 1 }' "$work/raw/samples.csv"
sample mended --set sampler.algorithm=pretrained --set sampler.groups=200
holds 'with it there are none' test "$(objects mended | grep -c '[.]')" -eq 0
holds 'and many are as they were' test "$(paste <(objects raw) <(objects mended) | awk '$1 == $2' | wc -l)" -gt 20

begin 'process.atoms: none leaves numbers'
sample numbers --set process.atoms=none --set sampler.algorithm=pretrained
# shellcheck disable=SC2016
holds 'nineteen of them' awk -F, 'NR > 1 && split($4, x, " ") != 19 { exit 1 }' "$work/numbers/samples.csv"
holds 'and no samples.sdf' test ! -e "$work/numbers/samples.sdf"

begin 'process.atoms: other elements'
sample fluorine --set process.atoms=C,F,S
holds 'they are in the SMILES' test "$(objects fluorine | grep -c '[FS]')" -gt 10
holds 'and no others' test "$(objects fluorine | grep -c '[NO]')" -eq 0

begin 'process.atoms: what does not fit is refused'
run "$kac" run "$work/molecules.yaml" --set process.atoms=C,N --out "$work/no" --quiet
expect 2
says 'process.atoms: 2 elements, and the nodes of'
run "$kac" run "$work/molecules.yaml" --set process.atoms=C,Xx,O --out "$work/no" --quiet
expect 2
says 'expected symbols of C N O F P S Cl Br I B with commas between them'
holds 'nothing is left' test ! -e "$work/no"

# ---- the rows -------------------------------------------------------------------------------

for row in pretrained best_of_n best_of_n_pool smc das nested funnel beam svdd_pm svdd_r \
    'svdd_mc --set sampler.value.kind=state' 'fk_steering --set sampler.value.estimate=argmax'; do
    read -ra words <<<"$row"
    begin "molecules by ${words[0]}"
    sample "row-${words[0]}" --set sampler.algorithm="${words[0]}" "${words[@]:1}" --set sampler.particles=4 \
        --set sampler.groups=4 --set process.steps=12 --set sampler.funnel=
    holds 'SMILES' test "$(objects "row-${words[0]}" | grep -cE '^[][CNOH+=#()0-9]+$')" -gt 0
done

# ---- RDKit ----------------------------------------------------------------------------------

begin 'RDKit agrees with what kac makes of graphs'
if ! has_rdkit; then
    skip 'there is no RDKit'
else
    mkdir "$work/graphs"
    run python3 tests/molecules.py "$build/tests/molecules" "$work/graphs"
    expect 0
    holds 'random graphs' test "$(grep -c '^random .* 200 graphs' "$work/out")" -eq 3

    begin 'RDKit reads samples.sdf and samples.smi alike'
    run python3 - "$work/plain" <<'PYTHON'
import sys
from rdkit import Chem
structures = list(Chem.SDMolSupplier(sys.argv[1] + "/samples.sdf"))
smiles = [line.split("\t")[0] for line in open(sys.argv[1] + "/samples.smi")]
assert len(structures) == len(smiles) == 32
for molecule, text in zip(structures, smiles):
    assert Chem.MolToSmiles(molecule) == Chem.CanonSmiles(text), text
    assert molecule.GetProp("smiles") == text
    assert int(molecule.GetProp("length")) == len(text)
PYTHON
    expect 0

    begin 'tools/molecules_grid.py draws the best ones'
    run python3 tools/molecules_grid.py "$work/plain" --most 6 --columns 3 --out "$work/best.svg"
    expect 0
    holds 'it says how many' grep -qx "$work/best.svg: 6 molecules" "$work/out"
    holds 'a picture three by two' python3 -c '
import sys
import xml.etree.ElementTree as xml
root = xml.parse(sys.argv[1]).getroot()
assert root.tag.endswith("svg") and root.get("width") == "660px" and root.get("height") == "400px"' "$work/best.svg"
    run python3 tools/molecules_grid.py "$work" --out "$work/none.svg"
    expect 2
    says 'molecules_grid.py: '
fi

# ---- a formula ------------------------------------------------------------------------------

if command -v python3 >/dev/null; then
    begin 'a reward of what molecules hold, and its gradient'
    run python3 tools/formula_reward.py "$work/molecules.safetensors" O=1,bonds=3 --deviation 2 --out "$work/formula.safetensors"
    expect 0
    cat >"$work/formula.yaml" <<YAML
model: {file: $work/molecules.safetensors}
process: {kind: graph, steps: 40, correction: none} # which may take atoms and bonds away
reward: [{name: formula, kind: quadratic, file: $work/formula.safetensors}]
sampler: {algorithm: tds, groups: 8, particles: 4, alpha: 0.2}
YAML
    run "$kac" run "$work/formula.yaml" --out "$work/formula" --quiet
    expect 0
    # bonds of a molecule in one piece without rings: one less than its atoms, and the double and triple ones
    # shellcheck disable=SC2016 # dollars are awk's
    holds 'it is the one of the molecules' awk -F, 'NR == 1 || $4 ~ /[][.0-9]/ { next }
        { all++; s = $4; o = gsub("O", "", s); a = o + gsub("[CN]", "", s); b = a - 1 + gsub("=", "", s) + 2 * gsub("#", "", s)
          want = -((o - 1) ^ 2 + (b - 3) ^ 2) / 8; if ($5 - want > 1e-5 || want - $5 > 1e-5) exit 1 }
        END { if (all < 4) exit 1 }' "$work/formula/samples.csv"
    holds 'gradients were taken' grep -q '"gradients": [1-9]' "$work/formula/run.json"
    for wrong in X=2 N=2,N=1 N=two; do
        run python3 tools/formula_reward.py "$work/molecules.safetensors" $wrong --out "$work/no.safetensors"
        expect 2
        says "formula_reward.py: \`${wrong##*,}\`: want"
        holds 'nothing is written' test ! -e "$work/no.safetensors"
    done
    PYTHONPATH=tools python3 -c 'import pathlib, sys; from make_gmm import save
save(pathlib.Path(sys.argv[1]), {}, {"max_node_num": "9", "model_config": "{\"data\": {\"data\": \"QM9\"}}"})' "$work/published.safetensors"
    run python3 tools/formula_reward.py "$work/published.safetensors" F=2,O=1 --out "$work/of_published.safetensors"
    expect 0
    run "$kac" inspect "$work/of_published.safetensors"
    holds 'a published file says its data: 4 elements, 9 nodes' grep -q 'matrix .*\[2, 73\]' "$work/out"
    run python3 tools/formula_reward.py "$work/denoiser.safetensors" N=2 --out "$work/no.safetensors"
    expect 2
    says 'does not say how many nodes'
fi

# ---- RDKit in C++ ---------------------------------------------------------------------------

properties=$build/rdkit_properties.so
absent="$properties is not built: the release build makes it where librdkit-dev, libboost-dev and rdkit-data are"
zinc=../shared/data/zinc250k_smiles/zinc250k_valid_test.tsv.gz
# agrees FILE...: what it says of the molecules is what the worker says.
agrees() {
    run python3 tests/properties.py "$build/tests/properties" "$@"
    expect 0
    if grep -q '^skipped: ' "$work/out"; then skip "$(sed -n 's/^skipped: //p' "$work/out")"; fi
}
begin 'the plug-in of RDKit says what the worker says'
if [ ! -f "$properties" ]; then
    skip "$absent"
elif ! has_rdkit; then
    skip 'there is no RDKit in Python'
else
    agrees
    begin 'and so it does of drug-like molecules'
    if [ -f "$zinc" ]; then
        gzip -dc "$zinc" | sed -n '2,2001p' >"$work/zinc.tsv"
        agrees "$work/zinc.tsv"
    else
        skip "$zinc is absent"
    fi

    begin 'a run is the same with the plug-in and with the worker'
    names=(qed ease logp sa weight valid)
    for kind in worker plugin; do
        {
            echo "model: {file: $work/molecules.safetensors}"
            echo 'process: {kind: graph, steps: 30}'
            echo 'sampler: {algorithm: svdd_pm, groups: 6, children: 4, alpha: 0.1, on_invalid: worst}'
            echo 'reward:'
            for i in "${!names[@]}"; do
                if [ "$kind" = worker ]; then
                    with="command: [python3, tools/workers/rdkit_properties.py, $(IFS=, && echo "${names[*]}")]"
                else
                    with="file: $properties, options: '${names[*]}'"
                fi
                echo "  - {name: ${names[i]}, kind: $kind, $with, output: $i, weight: $((i == 0))}"
            done
        } >"$work/by-$kind.yaml"
    done
    for way in '' '--set process.correction=none' '--set device.threads=3 --set device.batch=5'; do
        read -ra words <<<"$way"
        for kind in worker plugin; do
            run "$kac" run "$work/by-$kind.yaml" "${words[@]}" --out "$work/by-$kind" --quiet --force
            expect 0
        done
        holds "the samples $way" cmp "$work/by-worker/samples.csv" "$work/by-plugin/samples.csv"
    done

    begin 'the plug-in of RDKit refuses what it does not know'
    run "$kac" run "$work/by-plugin.yaml" --set reward.0.options='qed beauty' --out "$work/no" --quiet
    expect 2
    says 'it refuses: no property beauty; there are qed, sa, ease, logp, weight, valid'
    run "$kac" run configs/quickstart.yaml --set reward.0.kind=plugin --set reward.0.file="$properties" --out "$work/no" --quiet
    expect 2
    says 'it refuses: it is a reward of molecules'
fi

weights=../shared/data/gdss/gdss_qm9.safetensors
if [ ! -f "$weights" ] || ! has_rdkit; then
    begin 'QED guides the published model of QM9'
    skip "$weights or RDKit is absent"
else
    begin 'QED guides the published model of QM9'
    qm9=(configs/qm9_qed_svdd.yaml --set model.file="$weights" --set process.steps=60 --set sampler.groups=16)
    run "$kac" run "${qm9[@]}" --set sampler.children=4 --out "$work/guided" --quiet
    expect 0
    run "$kac" run "${qm9[@]}" --set sampler.algorithm=pretrained --set sampler.children=1 \
        --set sampler.select.parent.rule=none --out "$work/free" --quiet
    expect 0
    # shellcheck disable=SC2016
    mean='NR > 1 { s += $5 } END { print s / (NR - 1) }'
    guided=$(awk -F, "$mean" "$work/guided/samples.csv") free=$(awk -F, "$mean" "$work/free/samples.csv")
    holds "$guided is more than $free" awk "BEGIN { exit !($guided > $free + 0.03) }"
fi

finish
