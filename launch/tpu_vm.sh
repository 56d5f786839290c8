#!/usr/bin/env bash
# Starts a run on all hosts of a Cloud TPU VM. If --accelerator_type is given, the VM is created first. See
# docs/launch.md.
set -u

usage="usage: launch/tpu_vm.sh --name=VM --zone=ZONE --config=FILE --workdir=DIR [--config.KEY=VALUE ...]
  --project=P           Google Cloud project (default: the current project of gcloud)
  --accelerator_type=A  type of a VM to create, such as v5litepod-16 (default: use the VM that exists already)
  --version=V           software version of the VM (default: tpu-ubuntu2204-base)
  --folder=F            folder for the code, in the home folder of each host (default: hap_jax_run)
  --dry_run             print the command of one host and do not call gcloud
The VM still runs after the training: delete it with 'gcloud compute tpus tpu-vm delete'."

fail() {
  echo "error: $*" >&2
  exit 1
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) && cd "$root" || exit 1

name="" zone="" project="" accelerator_type="" version=tpu-ubuntu2204-base folder=hap_jax_run dry_run="" given=$#
for word in "$@"; do
  case $word in
    --name=*) name=${word#*=} ;;
    --zone=*) zone=${word#*=} ;;
    --project=*) project=${word#*=} ;;
    --accelerator_type=*) accelerator_type=${word#*=} ;;
    --version=*) version=${word#*=} ;;
    --folder=*) folder=${word#*=} ;;
    --dry_run) dry_run=1 ;;
    --help) echo "$usage" && exit 0 ;;
    *) set -- "$@" "$word" ;;
  esac
done
shift "$given"
line=$("${PYTHON:-python3}" launch/command.py "$@") || exit 1
[ -n "$dry_run" ] && echo "$line" && exit 0
[ -n "$name" ] || fail "--name is missing: the name of the TPU VM"
[ -n "$zone" ] || fail "--zone is missing: the zone of the TPU VM, such as us-west4-a"
[[ $folder =~ ^[A-Za-z0-9_.-]+$ ]] || fail "--folder=$folder: expected a name of letters, digits, _, . and -"
command -v gcloud >/dev/null || fail "gcloud is not on this machine: install the Google Cloud CLI"

tpu() {
  local verb=$1
  shift
  gcloud compute tpus tpu-vm "$verb" "$@" --zone="$zone" ${project:+"--project=$project"}
}

package=$(mktemp -d) || exit 1
trap 'rm -rf "$package"' EXIT
tar -czf "$package/$folder.tar.gz" --exclude=__pycache__ hap_jax configs requirements.txt pyproject.toml setup.py README.md LICENSE \
  || fail "cannot pack the code"

if [ -n "$accelerator_type" ]; then
  tpu create "$name" --accelerator-type="$accelerator_type" --version="$version" || fail "cannot create the VM"
fi
tpu scp "$package/$folder.tar.gz" "$name:" --worker=all || fail "cannot copy the code to the VM"

# The Python of the image may be older than 3.11, so uv installs Python 3.12. The hosts of a slice find each
# other, so the command needs no addresses.
tpu ssh "$name" --worker=all --command="set -e
mkdir -p $folder
tar -xzf $folder.tar.gz -C $folder
cd $folder
python3 -m pip install --quiet --user uv
[ -d .venv ] || python3 -m uv venv --quiet --python=3.12 .venv
python3 -m uv pip install --quiet --python=.venv/bin/python -r requirements.txt 'jax[tpu]'
. .venv/bin/activate
exec $line"
