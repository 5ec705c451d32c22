#!/usr/bin/env bash
# demo.sh [KAC] -- six algorithms design yeast promoters; the table compares them at equal
# denoiser calls, asked for (made + saved).  Results are kept in runs/demo/.
set -euo pipefail
kac=${1:-build/kac}

# row ALGORITHM GROUPS PARTICLES CHILDREN [KEY=VALUE]...
row() {
    local set=(--set "sampler.algorithm=$1" --set "sampler.groups=$2"
        --set "sampler.particles=$3" --set "sampler.children=$4")
    echo "== $1: $2 groups of $3, $4 children"
    local out=runs/demo/$1 key
    for key in "${@:5}"; do set+=(--set "$key"); done
    "$kac" run configs/quickstart.yaml "${set[@]}" --out "$out" --force
}

row pretrained 640 1 1
row best_of_n 64 10 1
row smc 32 10 1
row fk_steering 32 10 1
row svdd_pm 58 1 10
row nested 29 2 10

echo
"$kac" compare runs/demo/{pretrained,best_of_n,smc,fk_steering,svdd_pm,nested}
