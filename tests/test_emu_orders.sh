#!/usr/bin/env bash
# test_emu_orders.sh BUILD -- the kernels on the emulator with the threads of a block in other orders:
# a barrier that is missing is found by one of them.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

case $build in *asan*)
    begin 'orders of the threads'
    leave 'a build without sanitizers has them'
    ;;
esac
order() { # TITLE ORDER
    begin "$1"
    run env KAC_EMU_ORDER="$2" tests/run-unit "$build/emu" '@(masked|gaussian|states|weigh|twins_g*|twins_s*|twins_p*|twins_r*|networks|cnn1d)/*'
    expect 0
    holds 'tests ran' grep -qE '^unit: [1-9][0-9]* passed, 0 failed' "$work/out"
}
order 'descending' 1
order 'whoever can runs ahead' 2
order 'at random' 5

finish
