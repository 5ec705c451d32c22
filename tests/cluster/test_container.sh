#!/usr/bin/env bash
# test_container.sh BUILD -- the image of docker/cpu.Dockerfile, made by buildah from a Debian of
# debootstrap: it builds, holds no compiler, runs without root, alone and over ranks, with the bytes
# of the program in BUILD; and `make test` passes in it, unless KAC_TEST_INSIDE=0.
# KAC_BASE=FOLDER takes a Debian that debootstrap has made already.
# shellcheck source=tests/lib.sh disable=SC2016,SC2317 # dollars are the container's; holds calls functions
. "$(dirname "$0")/../lib.sh"

begin 'a Debian to begin with'
for program in buildah debootstrap; do
    command -v $program >/dev/null || leave "there is no $program; tools/install-deps cluster installs it"
done
[ "$(id -u)" -eq 0 ] || leave 'debootstrap wants root'
# All that it makes is in $work, and it asks nothing of the kernel that a container lacks.
export BUILDAH_ISOLATION=chroot
b() {
    buildah --root "$work/store" --runroot "$work/runroot" --storage-driver vfs "$@"
}
# inside USER COMMAND...: in a container of the image, where USER may be empty: the image's own.  What
# it says comes by a file: on a busy machine buildah may lose the end of it.
inside() {
    rm -f "$there"/tmp/{out,err}
    run b run ${1:+--user="$1"} "$container" -- sh -c '"$@" >/tmp/out 2>/tmp/err' sh "${@:2}"
    cat "$there/tmp/out" >>"$work/out"
    cat "$there/tmp/err" >>"$work/err"
}
trap 'b rm --all >/dev/null 2>&1; rm -rf "$work"' EXIT
base=${KAC_BASE:-$work/root}
if [ -z "${KAC_BASE:-}" ]; then run debootstrap --variant=minbase bookworm "$base"; fi
expect 0
empty=$(b from scratch)
b add -q "$empty" "$base" / >/dev/null && b commit -q "$empty" localhost/debian:bookworm-slim >/dev/null
b rm "$empty" >/dev/null
holds 'it is an image' b inspect --type image localhost/debian:bookworm-slim

begin 'the image builds'
run b bud --pull-never --layers --format docker -f docker/cpu.Dockerfile -t kac .
expect 0
[ "$code" -eq 0 ] || finish
container=$(b from --pull-never kac)
there=$(b mount "$container") # its files

begin 'what it says of itself'
run b inspect --type image --format \
    '{{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}} {{.OCIv1.Config.User}} {{.Docker.Config.Healthcheck.Test}}' kac
holds 'kac, not root, and a health check' test "$(cat "$work/out")" = '[kac] [help] 10001:10001 [CMD kac devices]'
inside '' kac devices
expect 0
holds 'it is healthy' grep -q '^cpu ' "$work/out"

begin 'there is no root in it, and nothing to build with'
inside '' id -u
holds 'the user is kac' test "$(cat "$work/out")" = 10001
inside '' touch /usr/local/share/kac/file
holds 'what is installed cannot be written' test "$code" -ne 0
for tool in gcc make; do
    inside '' sh -c "command -v $tool"
    holds "no $tool" test "$code" -ne 0
done
inside '' sh -c 'ls /etc/ssh/ssh_host_*'
holds 'no key of a host' test "$code" -ne 0

begin 'a run'
small=(configs/quickstart.yaml --set process.steps=4 --set sampler.groups=4 --quiet)
run "$kac" run "${small[@]}" --out "$work/here"
expect 0
inside '' kac run "${small[@]}" --out /runs/alone
expect 0
inside '' cat /runs/alone/samples.csv
holds 'the samples are those of this machine' cmp "$work/here/samples.csv" "$work/out"

begin 'a run of two ranks'
inside '' mpirun --oversubscribe -n 2 kac run "${small[@]}" --out /runs/two
expect 0
inside '' cmp /runs/alone/samples.csv /runs/two/samples.csv
expect 0
inside '' grep '"ranks": 2,$' /runs/two/run.json
expect 0

begin 'a reward in Python'
inside '' kac run configs/promoter_worker.yaml --set process.steps=4 --quiet --out /runs/worker
expect 0

begin 'any other user'
inside 4711:4711 sh -c "kac run ${small[*]} --out /tmp/other"
expect 0

begin 'ssh as the pods of an MPIJob have it'
inside '' sh -c 'mkdir -m 700 ~/.ssh && ssh-keygen -q -t ecdsa -N "" -f ~/.ssh/id_rsa && cp ~/.ssh/id_rsa.pub ~/.ssh/authorized_keys'
expect 0
# from another port than the image's, which may be taken here
inside '' sh -c '/usr/sbin/sshd -De -p 12022 -f /etc/ssh/kac_sshd_config & trap "kill $!" EXIT
    for i in $(seq 100); do ssh -p 12022 127.0.0.1 kac version && exit; sleep 0.1; done; exit 1'
expect 0
holds 'kac is there' grep -q '^kac [0-9]' "$work/out"

begin 'make test passes inside'
if [ "${KAC_TEST_INSIDE:-1}" = 0 ]; then
    skip 'KAC_TEST_INSIDE=0'
else
    run b bud --pull-never --layers --format docker --target test -f docker/cpu.Dockerfile -t kac-test .
    expect 0
    holds 'with its total' grep -qE '^[0-9]+ passed, 0 failed, [0-9]+ skipped$' "$work/out"
    grep -E '^(skipped|FAILED|failed): |[0-9] passed, ' "$work/out" | sed 's/^/inside: /'
fi

finish
