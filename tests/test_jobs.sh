#!/usr/bin/env bash
# test_jobs.sh BUILD -- the job files of docker/slurm and docker/kubernetes: what they run, with
# stand-ins for srun and scontrol, and whether manifests and images agree.  tests/cluster has what
# needs a cluster or builds an image.
# shellcheck source=tests/lib.sh disable=SC2317 # holds calls functions
. "$(dirname "$0")/lib.sh"

models=$work/models
mkdir "$models" "$work/bin"
"$build/tests/make_models" "$models" || exit 1
cat >"$work/short.yaml" <<END
model: {file: $models/denoiser.safetensors}
process: {steps: 12}
reward: [{kind: table, file: $models/reward.safetensors}]
sampler: {groups: 8, particles: 16, alpha: 0.3}
END
# and one that takes its time, most of it asleep, so that there is time to stop it
cat >"$work/worker.sh" <<'END'
while read -r count; do
    sleep 0.05
    for ((i = 0; i < count; i++)); do
        read -r object
        echo ${#object}
    done
done
END
cat >"$work/long.yaml" <<END
model: {file: $models/denoiser.safetensors}
process: {steps: 30}
reward: [{kind: worker, name: length, batch: 64, command: [bash, $work/worker.sh]}]
sampler: {groups: 4, particles: 4, alpha: 0.3, reuse: off}
END
"$kac" run "$work/long.yaml" --out "$work/long" --quiet || exit 1
PATH=$work/bin:$build:$PATH

# start COMMAND...: in the background, as $pid, once it works told to stop; $code is how it ended.
stopped() {
    "$@" >"$work/out" 2>"$work/err" &
    pid=$!
    until grep -q '^kac: step' "$work/err" || [ ! -e "/proc/$pid" ]; do sleep 0.01; done
    kill -TERM "$(cat "$work/pid" 2>/dev/null || echo "$pid")"
    code=0
    wait "$pid" || code=$?
}
same() { # FOLDER FOLDER
    holds 'samples.csv is the same' cmp "$work/$1/samples.csv" "$work/$2/samples.csv"
}

# ---- Slurm ----------------------------------------------------------------------------------

# srun runs what it is given on this machine; scontrol says what it was asked.
cat >"$work/bin/srun" <<END
#!/bin/bash
while [[ \$1 == --* ]]; do shift; done
echo \$\$ >"$work/pid"
exec "\$@"
END
cat >"$work/bin/scontrol" <<END
#!/bin/bash
echo "\$@" >>"$work/asked"
END
chmod +x "$work/bin/srun" "$work/bin/scontrol"
export SLURM_JOB_ID=41 SLURM_CPUS_PER_TASK=1

for job in one-node many-nodes; do
    script=docker/slurm/$job.sbatch
    begin "$job: stopped, queued again, resumed"
    rm -f "$work/asked" "$work/pid"
    stopped bash $script "$work/long.yaml" "$work/$job"
    expect 3
    says 'stopped at step'
    holds 'it is queued again' test "$(cat "$work/asked")" = 'requeue 41'
    rm -f "$work/asked"
    run bash $script "$work/long.yaml" "$work/$job"
    expect 0
    holds 'it is not' test ! -e "$work/asked"
    same long $job

    begin "$job: not for ever"
    rm -rf "${work:?}/$job" "$work/pid"
    SLURM_RESTART_COUNT=100 stopped bash $script "$work/long.yaml" "$work/$job"
    expect 3
    holds 'it is not queued again' test ! -e "$work/asked"

    begin "$job: a mistake"
    run bash $script "$work/short.yaml" "$work/mistaken" --set sampler.alpha=-1
    expect 2
    says 'sampler.alpha'
    holds 'it is not queued again' test ! -e "$work/asked"
    run bash $script
    holds 'it fails without arguments' test "$code" -ne 0
    says "usage: sbatch $job.sbatch CONFIG OUT"
done

begin 'an array is a sweep'
vary=('sampler.particles=4,8' 'sampler.alpha=0.3,1,2')
for point in 0 1 2 3 4 5; do
    SLURM_ARRAY_TASK_ID=$point run bash docker/slurm/array.sbatch "$work/short.yaml" "$work/points" "${vary[@]}"
    expect 0
done
run "$kac" sweep "$work/short.yaml" --vary "${vary[0]}" --vary "${vary[1]}" --out "$work/sweep" --no-baseline --quiet
expect 0
for point in 0 1 2 3 4 5; do same sweep/point_00$point points/point_00$point; done
touch -d 2001-01-01 "$work"/points/*/samples.csv
run "$kac" sweep "$work/short.yaml" --vary "${vary[0]}" --vary "${vary[1]}" --out "$work/points" --no-baseline --quiet
expect 0
holds 'kac sweep runs none of them again' test -z "$(find "$work/points" -name samples.csv -newermt 2002-01-01)"
holds 'its table has all' test "$(lines "$work/points/sweep.csv")" -eq 7

begin 'a point that the grid does not have'
SLURM_ARRAY_TASK_ID=6 run bash docker/slurm/array.sbatch "$work/short.yaml" "$work/points" "${vary[@]}"
expect 2
says 'the grid has no point 6'

begin 'an array that was not submitted as one'
run bash docker/slurm/array.sbatch "$work/short.yaml" "$work/points" seed=1,2
holds 'it fails' test "$code" -ne 0
says 'submit it with sbatch --array=0-LAST'

begin 'what sbatch reads'
for script in docker/slurm/*.sbatch; do
    for option in '--requeue' '--signal=TERM@120' '--open-mode=append'; do
        holds "$script says $option" grep -qx "#SBATCH $option" "$script"
    done
done

# ---- Kubernetes -----------------------------------------------------------------------------

if ! python3 -c 'import yaml' 2>/dev/null; then
    begin 'manifests'
    skip 'python3 has no yaml (Debian: python3-yaml)'
    finish
fi
# field FILE EXPRESSION: what is there, the items of a list on a line each.  The expression is
# Python's: `m` is the manifest, `pod` the pod of the Job, `launcher` and `worker` those of the MPIJob.
field() {
    python3 -c '
import sys, yaml
m = yaml.safe_load(open(sys.argv[1]))
pod = m["spec"].get("template", {}).get("spec")
kinds = m["spec"].get("mpiReplicaSpecs", {})
launcher, worker = (kinds.get(k, {}).get("template", {}).get("spec") for k in ("Launcher", "Worker"))
value = eval(sys.argv[2])
print(*value if isinstance(value, list) else [value], sep="\n")' "docker/kubernetes/$1.yaml" "$2"
}
# is VALUE FILE EXPRESSION
is() {
    holds "$2: $3 is $1" test "$(field "$2" "$3")" = "$1"
}
begin 'manifests: kinds'
is batch/v1 job "m['apiVersion']"
is Job job "m['kind']"
is kubeflow.org/v2beta1 mpijob "m['apiVersion']"
is MPIJob mpijob "m['kind']"
is OpenMPI mpijob "m['spec']['mpiImplementation']"
is PersistentVolumeClaim volume "m['kind']"

begin 'manifests and images agree'
user=$(sed -n 's/^USER \([0-9]*\):.*/\1/p' docker/cpu.Dockerfile)
claim=$(field volume "m['metadata']['name']")
for each in 'job pod' 'mpijob launcher' 'mpijob worker'; do
    file=${each%% *} spec=${each#* }
    is "$user" "$file" "${spec}['securityContext']['runAsUser']"
    is "$user" "$file" "${spec}['securityContext']['fsGroup']"
    is "$claim" "$file" "${spec}['volumes'][0]['persistentVolumeClaim']['claimName']"
    is "$(field "$file" "${spec}['volumes'][0]['name']")" "$file" "${spec}['containers'][0]['volumeMounts'][0]['name']"
    is /runs "$file" "${spec}['containers'][0]['volumeMounts'][0]['mountPath']"
done
is "$(sed -n 's|^COPY docker/ssh/server.conf ||p' docker/cpu.Dockerfile)" mpijob "worker['containers'][0]['args'][-1]"
is "$(sed -n 's|^HostKey \(.*\)/id_rsa$|\1|p' docker/ssh/server.conf)" mpijob "m['spec']['sshAuthMountPath']"
holds 'ssh and sshd have one port' test "$(sed -n 's/^ *Port //p' docker/ssh/client.conf)" = "$(sed -n 's/^Port //p' docker/ssh/server.conf)"

# The command of a container, with the configuration and the folder of this test.
export CONFIG=$work/long.yaml OUT=$work/pod OMP_NUM_THREADS=1
begin 'a Job: stopped, started again, resumed'
mapfile -t command < <(field job "pod['containers'][0]['command']")
command+=("$(field job "pod['containers'][0]['args'][0]")")
rm -f "$work/pid"
stopped "${command[@]}"
expect 3
holds 'which is no reason to give up' test "$(field job "[r for r in m['spec']['podFailurePolicy']['rules'] if r['action'] == 'FailJob'][0]['onExitCodes']['values']" | tr '\n' ' ')" = '1 2 '
run "${command[@]}"
expect 0
same long pod
run "${command[@]}"
expect 0

finish
