# lib.sh -- what the shell tests share; sourced, with the build folder as its argument.
#
#   begin NAME        names the next case
#   run COMMAND...    runs it; $code, and its output in $work/out and $work/err
#   expect CODE       the exit code of the latest run
#   says TEXT         stderr of the latest run has TEXT
#   holds WHAT TEST.. what must be true, and the command that tells
#   lines FILE        how many it has; 0 where it is not there
#   skip REASON       the case can not be tried here
#   start COMMAND...  kac in the background, as $pid; ended waits for it, $code is how it ended
#   await TEST...     until that is so, or it has ended
#   soon TEST...      whether that is so, now or within 20 seconds
#   gone PID...       none of these processes is there, now or soon
#   none_of PATTERN   no process has it in its command line
#   clean             nothing hidden is beside the folders in $work
#   toy NAME LINE...  $work/NAME.yaml: the denoiser of $models, and these lines
#   has_mpi BUILD     whether ranks can be started with it; from then on as many as one likes
#   leave REASON      nothing can be tried here: skips the case, and ends the test
#   finish            prints the total and exits
# shellcheck shell=bash
set -uo pipefail
build=$(cd "${1:?usage: test BUILD}" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # for those who source this
kac=$build/kac
[ -x "$kac" ] || { echo "$kac is not there: make first" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root" || exit 1
export KAC_DEVICE=cpu # what device.name: auto is here
export OMP_WAIT_POLICY=passive # threads that wait would spin on a busy machine's few cores

passed=0 failed=0 skipped=0 title='' bad='' code=0

# Closes the case in hand.
close() {
    if [ -z "$title" ]; then return; fi
    if [ -z "$bad" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n' "$title"
        printf '%s' "$bad"
        sed 's/^/    | /' "$work/out" "$work/err" 2>/dev/null | tail -n 20
    fi
    title='' bad=''
}

begin() {
    close
    title=$1
    : >"$work/out"
    : >"$work/err"
}

run() {
    code=0
    "$@" >"$work/out" 2>"$work/err" || code=$?
    if grep -q 'Sanitizer' "$work/err"; then bad+="    a sanitizer reported"$'\n'; fi
}

expect() {
    if [ "$code" -ne "$1" ]; then bad+="    exit code $code, not $1"$'\n'; fi
}

says() {
    if ! grep -qF -e "$1" "$work/err"; then bad+="    stderr does not say: $1"$'\n'; fi
}

holds() {
    local what=$1
    shift
    if ! "$@" >/dev/null 2>&1; then bad+="    not so: $what"$'\n'; fi
}

# Whether python3 has RDKit, which from here on it has: Debian's own python3 may not come first.
has_rdkit() {
    if python3 -c 'import rdkit' 2>/dev/null; then return 0; fi
    /usr/bin/python3 -c 'import rdkit' 2>/dev/null || return 1
    mkdir -p "$work/bin"
    ln -sf /usr/bin/python3 "$work/bin/python3"
    PATH=$work/bin:$PATH
}

lines() {
    awk 'END { print NR }' "$1" 2>/dev/null || echo 0
}

skip() {
    printf 'skipped: %s: %s\n' "$title" "$1"
    skipped=$((skipped + 1))
    title='' bad=''
}

launch() { # COMMAND...: in the background, as $pid
    set -m # else the shell lets children in the background ignore SIGINT
    "$@" >"$work/out" 2>"$work/err" &
    pid=$!
    set +m
}
start() {
    launch "$kac" "$@"
}
ended() {
    code=0
    wait "$pid" 2>/dev/null || code=$?
}
await() {
    until "$@" >/dev/null 2>&1 || ! kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
}
soon() {
    local i
    for ((i = 0; i < 1200; i++)); do
        if "$@"; then return 0; fi
        sleep 0.05
    done
    return 1
}
buried() { # PID...; a zombie that nobody has buried yet is over, too
    local pid
    for pid; do
        if [ -e "/proc/$pid" ] && ! grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null; then return 1; fi
    done
}
gone() {
    holds 'no process is left' soon buried "$@"
}
none_of() {
    pgrep -f "$1" >/dev/null
    [ $? -eq 1 ] # it found none, and was there to look
}
clean() {
    holds 'nothing is beside the folder' test -z "$(find "$work" -maxdepth 1 -name '.*' ! -path "$work")"
}
toy() {
    local file=$work/$1.yaml
    shift
    {
        # shellcheck disable=SC2154 # those who source this have made them
        echo "model: {file: $models/denoiser.safetensors}"
        echo "device: {threads: 1}"
        printf '%s\n' "$@"
    } >"$file"
}
has_mpi() { # more ranks than cores, as root, in a container: what Open MPI would refuse
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 # MPI's own
    command -v mpirun >/dev/null && [ -e "$1/libkac_mpi.so" ]
}
newest() { # FOLDER: its latest checkpoint
    find "$1" -maxdepth 1 -name 'checkpoint-*.safetensors' 2>/dev/null | sort | tail -n 1
}
count() { # FOLDER: its checkpoints
    find "$1" -maxdepth 1 -name 'checkpoint-*.safetensors' 2>/dev/null | wc -l
}
has_checkpoints() { # FOLDER LEAST
    test "$(count "$1")" -ge "$2"
}
damage() { # FILE: another byte in the middle
    local at=$(($(stat -c %s "$1") / 2)) byte=$'\x55'
    if [ "$(od -An -tx1 -j "$at" -N 1 "$1")" = ' 55' ]; then byte=$'\xaa'; fi
    printf %s "$byte" | dd of="$1" bs=1 seek="$at" conv=notrunc 2>/dev/null
}
plain() { # FILE: without what is another in each run
    sed -E '/^  "started": \{/,/^  \}/d; /"seconds": \{/,/\}/d; /"dir": /d; s/"seconds":[^,}]*//' "$1"
}
steady() { # FOLDER: what its trace says whatever the number of ranks; `evaluations` are of all
    sed -E 's/"seconds":[^,}]*//; s/"evaluations":\{[^}]*\}//' "$1/trace.jsonl"
}
numbers() { # FOLDER KEYS: so too run.json, without these keys, A|B
    sed -E "s/,\$//; /^  \"started\": \\{/,/^  \\}/d; /\"(evaluations|seconds|span)\": \\{/,/\\}/d; /\"(dir|ranks|transport|$2)\": /d" "$1/run.json"
}
leave() {
    skip "$1"
    echo "$(basename "$0" .sh): 0 passed, 0 failed, 1 skipped"
    exit
}

finish() {
    close
    local test
    test=$(basename "$0" .sh)
    if [ $((passed + failed)) -eq 0 ]; then
        echo 'FAILED: nothing was tried'
        failed=1
    fi
    echo "$test: $passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}
