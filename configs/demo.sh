#!/usr/bin/env bash
# demo.sh [KAC] -- seven runs design 64 yeast promoters each; the table compares them.
#
# Every row but pretrained asks the denoiser for 1,280 states a design (best_of_n 1,290), made or
# saved: n (1 + M) T for n particles, M children, T = 128 steps, and n (T + 1) for best_of_n.
# pretrained shows where everyone starts and costs a tenth.  Each design comes from its own
# group, so designs are independent of each other.  Results are kept in runs/demo/.
set -euo pipefail
kac=${1:-build/kac}
runs=()

# row NAME ALGORITHM PARTICLES CHILDREN [KEY=VALUE]...: configs/quickstart.yaml with these
row() {
    local set=(--set "sampler.algorithm=$2" --set "sampler.particles=$3" --set "sampler.children=$4") key
    for key in "${@:5}"; do set+=(--set "$key"); done
    echo "== $1: 64 groups of $3 particles, children $4"
    "$kac" run configs/quickstart.yaml "${set[@]}" --out "runs/demo/$1" --force
    runs+=("runs/demo/$1")
}
one=(sampler.final.kind=categorical sampler.final.keep=1) # one design of each group, by weight

row pretrained pretrained 1 1
row best_of_n best_of_n 10 1
row smc smc 5 1 "${one[@]}"
row fk_steering fk_steering 5 1 "${one[@]}"
row nested nested 2 4 "${one[@]}"
row svdd_pm svdd_pm 1 9
row svdd_pm_argmax svdd_pm 1 9 sampler.select.parent.rule=argmax

echo
"$kac" compare "${runs[@]}"
echo
echo 'svdd_pm_argmax takes the best child, as published code does.  The independent reward is a network'
echo 'trained on other sequences, which guided nothing.'
