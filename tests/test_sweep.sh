#!/usr/bin/env bash
# test_sweep.sh BUILD: the grid, its table, resuming, and what is refused.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

grid=(configs/quickstart.yaml --set process.steps=8 --set sampler.groups=4 --set output.likelihood=off
    --vary 'sampler.children=2,3' --vary 'sampler.alpha=0.5,2')
# column NAME FILE: the values of a column of a CSV file, a line each
column() {
    awk -F, -v name="$1" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) at = i; next } { print $at }' "$2"
}
table=$work/sweep/sweep.csv

begin 'a grid'
run "$kac" sweep "${grid[@]}" --out "$work/sweep"
expect 0
holds 'a line a point and its baseline' test "$(lines "$table")" -eq 9
holds 'the last key varies fastest' test "$(column sampler.alpha "$table" | tr '\n' ' ')" = '0.5 0.5 2 2 0.5 0.5 2 2 '
holds 'the first slowest' test "$(column sampler.children "$table" | tr '\n' ' ')" = '2 2 2 2 3 3 3 3 '
holds 'baselines follow their points' test "$(column algorithm "$table" | sort | uniq -c | tr -s ' \n' ' ')" = ' 4 best_of_n 4 svdd_pm '
holds 'the table is printed' test "$(grep -c 'point_00' "$work/out")" -eq 4
for i in 0 1 2 3; do
    calls=$(grep -m 1 '"denoiser": [0-9]*,' "$work/sweep/point_00$i/run.json" | tr -dc 0-9)
    holds "calls of point $i are those of its run" test "$(column calls_denoiser "$table" | sed -n "$((2 * i + 1))p")" = "$calls"
    holds "its baseline has about as many" awk -v a="$calls" -v b="$(column calls_denoiser "$table" | sed -n "$((2 * i + 2))p")" \
        'BEGIN { exit !(b > 0.7 * a && b < 1.3 * a) }' # whole particles
done

begin 'a point is the run that it names'
run "$kac" run configs/quickstart.yaml --set process.steps=8 --set sampler.groups=4 --set output.likelihood=off \
    --set sampler.children=3 --set sampler.alpha=0.5 --out "$work/alone"
expect 0
holds 'byte for byte' cmp "$work/alone/samples.csv" "$work/sweep/point_002/samples.csv"

begin 'an evidence says whether it is reliable'
run "$kac" sweep configs/quickstart.yaml --set process.steps=8 --set sampler.algorithm=smc --set sampler.children=1 \
    --set sampler.alpha=1000 --vary sampler.groups=15,16 --no-baseline --out "$work/alike"
expect 0
holds 'not from fifteen groups' test "$(column log_evidence_reliable "$work/alike/sweep.csv" | tr '\n' ' ')" = 'false true '
holds 'a question mark where it is not' test "$(grep -c '[0-9] ?  ' "$work/out")" -eq 1
holds 'an error where it is' test "$(grep -c ' +- ' "$work/out")" -eq 1

begin 'it goes on where it was'
touch -d '2001-01-01' "$work/sweep/point_000/samples.csv"
rm -r "$work/sweep/point_001" "$table"
run "$kac" sweep "${grid[@]}" --out "$work/sweep"
expect 0
holds 'what is complete stays' test "$work/sweep/point_000/samples.csv" -ot "$work/sweep/point_002/samples.csv"
holds 'what is missing is run' test -s "$work/sweep/point_001/run.json"
holds 'the table is whole' test "$(lines "$table")" -eq 9

begin 'it goes on with other numbers of threads, which change no result'
run "$kac" sweep "${grid[@]}" --set device.threads=2 --set job.patience=50 --out "$work/sweep"
expect 0
holds 'what is complete stays' test "$work/sweep/point_000/samples.csv" -ot "$work/sweep/point_002/samples.csv"

begin 'another configuration is refused, and nothing is lost'
run "$kac" sweep "${grid[@]}" --set seed=2 --out "$work/sweep"
expect 2
says 'point_000 holds a run of another configuration'
holds 'the table stays' test "$(lines "$table")" -eq 9

begin 'common random numbers'
run "$kac" sweep configs/quickstart.yaml --set process.steps=8 --set sampler.groups=4 --vary device.batch=3,64 \
    --no-baseline --quiet --out "$work/same"
expect 0
holds 'equal samples' cmp "$work/same/point_000/samples.csv" "$work/same/point_001/samples.csv"
holds 'no baseline' test "$(lines "$work/same/sweep.csv")" -eq 3
holds 'quiet' test ! -s "$work/out"

begin 'a point that fails does not stop the others'
run "$kac" sweep configs/quickstart.yaml --set process.steps=8 --set sampler.groups=4 --set reward.0.at_most=5 \
    --vary sampler.on_dead=error,freeze --no-baseline --quiet --out "$work/dead"
holds 'it is told' test "$code" -ne 0
holds 'the other is there' test -s "$work/dead/point_001/run.json"
table=$work/dead/sweep.csv
holds 'both are in the table' test "$(column status "$table" | tr '\n' ' ')" = 'failed ok '
holds 'with the reason' grep -q '^error,point_000,failed,".*group.*",' "$table"
holds 'forbidden samples are counted' test "$(column forbidden "$table" | tail -n 1)" = \
    "$(sed -n 's/^  "forbidden": \([0-9]*\),$/\1/p' "$work/dead/point_001/run.json")"
holds 'and equally many columns' test "$(awk -F, '{ gsub(/"[^"]*"/, ""); print NF }' "$table" | sort -u | wc -l)" -eq 1
holds 'what is printed leaves it out' test "$(grep -c point_00 "$work/out")" -eq 0

begin 'all points may fail'
run "$kac" sweep configs/quickstart.yaml --set process.steps=8 --set sampler.groups=4 --set sampler.algorithm=smc \
    --vary sampler.alpha=1,2 --out "$work/none"
expect 2
holds 'a line each, and no baseline' test "$(column status "$work/none/sweep.csv" | tr '\n' ' ')" = 'failed failed '

begin 'mistakes'
run "$kac" sweep configs/quickstart.yaml --vary sampler.chldren=2,3 --out "$work/no"
expect 2
says 'did you mean'
run "$kac" sweep configs/quickstart.yaml --vary sampler.children --out "$work/no"
expect 2
says 'want KEY=VALUE,VALUE,...'
run "$kac" sweep configs/quickstart.yaml --out "$work/no"
expect 2
says 'want --vary'
run "$kac" sweep configs/quickstart.yaml --vary sampler.children=2,x --out "$work/no"
expect 2
says 'sampler.children: expected an integer'
run "$kac" sweep configs/quickstart.yaml --vary sampler.children=2, 3 --out "$work/no"
expect 2
says '--vary sampler.children=2,: nothing follows the last comma; want KEY=VALUE,VALUE,... without blanks'
run "$kac" sweep configs/quickstart.yaml --vary sampler.children=2,3 --set sampler.groups 4 --out "$work/no"
expect 2
says '--set sampler.groups: want KEY=VALUE without blanks'
holds 'nothing was made' test ! -e "$work/no"

begin 'a folder that is no sweep'
: >"$work/file"
run "$kac" sweep "${grid[@]}" --out "$work/file"
expect 2
says 'it is a file; a sweep makes a folder'
run "$kac" sweep "${grid[@]}" --out "$work/alone"
expect 2
says "--out $work/alone: it is the folder of a run"
holds 'nothing is in it' test ! -e "$work/alone/point_000" -a ! -e "$work/alone/sweep.csv"

begin 'kac compare of a sweep'
run "$kac" compare "$work/sweep"
expect 2
says "$work/sweep: it is a sweep, whose table is sweep.csv in it; for its runs take kac compare $work/sweep/*/"
run "$kac" compare "$work"/sweep/*/
expect 0

begin 'points that do not fit the file say so, each'
run "$kac" sweep configs/quickstart.yaml --set process.steps=8 --set sampler.groups=4 --vary sampler.algorithm=smc,svdd_pm \
    --no-baseline --quiet --out "$work/rows"
expect 2
says 'but smc takes 1: add --set sampler.children=1, or leave children out of the file'
holds 'the other is there' test -s "$work/rows/point_001/run.json"

finish
