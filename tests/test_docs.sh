#!/usr/bin/env bash
# test_docs.sh BUILD -- the manual against the program: the generated page is fresh, every row of
# algorithms has its section, every command and key named is known, every link leads to a file.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

begin 'docs/config.md is what kac explain --all writes'
run "$kac" explain --all
expect 0
holds 'up to date; mend with: build/kac explain --all >docs/config.md' \
    cmp "$work/out" docs/config.md

begin 'docs/algorithms.md has a section for each row, and no other'
run "$kac" explain algorithms
expect 0
grep '^[a-z]' "$work/out" >"$work/rows"
sed -n 's/^### //p' docs/algorithms.md >"$work/sections"
holds 'the same names in the same order' cmp "$work/rows" "$work/sections"

begin 'keys that the manual names exist'
# `process.steps`, `sampler.alpha=0.2`: in backquotes, or after --set
grep -ohE '(`|--set )(model|process|reward|sampler|driver|search|device|job|output)\.[a-z0-9_.]*[a-z]' \
    docs/*.md README.md 2>/dev/null | sed 's/.*[` ]//' | sort -u >"$work/keys"
holds 'some are named' test -s "$work/keys"
while read -r key; do holds "$key" "$kac" explain "$key"; done <"$work/keys"

for page in README.md docs/*.md models/*.md tools/README.md; do
    [ -f "$page" ] || continue
    begin "links of $page"
    while read -r link; do
        holds "$link is there" test -e "$(dirname "$page")/${link%%#*}"
    done < <(grep -oE '\]\([^)]+\)' "$page" | sed 's/^](//; s/)$//' | grep -vE '^(https?:|#)')
    # Paths of the project in running text and examples.
    while read -r path; do
        holds "$path is there" test -e "$path"
    done < <(grep -ohE '\b(configs|models|tools|docker|docs)/[A-Za-z0-9_]+\.[a-zA-Z]+[a-z]' "$page" | sort -u)
done

if command -v python3 >/dev/null; then
    begin 'the protein example of docs/models.md'
    sed -n '/^## Proteins$/,/^## Rewards$/p' docs/models.md >"$work/page"
    # shellcheck disable=SC2016 # backquotes are Markdown's
    for kind in python yaml; do sed -n '/^```'$kind'$/,/^```$/p' "$work/page" | sed '1d;$d' >"$work/example.$kind"; done
    grep -E '^    (PYTHONPATH|sed )' "$work/page" >"$work/commands"
    (cd "$work" && mv example.python chain.py && mv example.yaml protein.yaml && ln -s "$root/tools" tools &&
        printf '>a\nMKV-LAA\nGIWK\n>b\nMRXE\n' >mine.fasta)
    run env -C "$work" bash -e commands
    expect 0
    run env -C "$work" "$kac" run protein.yaml --set process.steps=8 --set sampler.groups=2 --out protein --quiet
    expect 0
    # shellcheck disable=SC2016 # dollars are awk's
    holds 'rewards are net charges' awk -F, 'NR > 1 { s = $4; d = gsub(/[DE]/, "", s); if ($7 != gsub(/[KR]/, "", s) - d) exit 1 } END { exit NR != 3 }' "$work/protein/samples.csv"

    # -S: without numpy, PyTorch and RDKit
    for script in tools/*.py tools/*/*.py; do
        case $script in */kac_io.py | */needs.py | */promoter_data.py) continue ;; esac # modules
        begin "$script --help"
        run python3 -S -E "$script" --help
        expect 0
        holds 'it explains itself' grep -qE '[a-z]{3}.*[a-z]{3}' "$work/out"
        holds 'and says nothing else' test ! -s "$work/err"
    done
    for script in landscape train_value convert_optimus5p molecule_report; do
        begin "tools/$script.py without what it needs"
        run python3 -S -E "tools/$script.py" a b
        expect 1
        says "$script.py needs "
        says ': tools/README.md says how'
        holds 'one sentence' test "$(lines "$work/err")" -eq 1
    done
else
    begin 'tools explain themselves'
    skip 'there is no python3'
fi

finish
