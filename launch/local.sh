#!/usr/bin/env bash
# Runs on this machine, in one process or several; see docs/launch.md. Works with bash 3.2, which macOS has.
set -u

usage="usage: launch/local.sh --config=FILE --workdir=DIR [--config.KEY=VALUE ...]
  --num_processes=N  processes that share the run (default: 1, which uses all local devices)
  --port=P           where they meet on 127.0.0.1 (default: a free one)
  --dry_run          print the commands, start nothing
PYTHON names the interpreter (default: .venv/bin/python, else python3)."

# Seconds that the others get to end by themselves once one has failed. No SIGTERM: they could only save together.
grace=5

fail() {
  echo "error: $*" >&2
  exit 1
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) && cd "$root" || exit 1
python=python3
[ -x .venv/bin/python ] && python=$root/.venv/bin/python
python=${PYTHON:-$python}

num_processes=1 port="" dry_run="" given=$#
for word in "$@"; do
  case $word in
    --num_processes=*) num_processes=${word#*=} ;;
    --port=*) port=${word#*=} ;;
    --dry_run) dry_run=1 ;;
    --help) echo "$usage" && exit 0 ;;
    *) set -- "$@" "$word" ;;
  esac
done
shift "$given"
[[ $num_processes =~ ^[1-9][0-9]*$ ]] || fail "--num_processes=$num_processes: expected a number from 1 on"
[[ $port =~ ^[0-9]*$ ]] || fail "--port=$port: expected a number"

line=$("$python" launch/command.py "$@") || exit 1
eval "set -- $line" # quoted by command.py for this; what is printed is what runs
shift

if [ "$num_processes" -eq 1 ]; then
  [ -n "$dry_run" ] && echo "$line" && exit 0
  exec "$python" "$@"
fi

if [ -z "$port" ]; then
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])') \
    || exit 1
fi
meet="--coordinator_address=127.0.0.1:$port --num_processes=$num_processes --process_id="
if [ -n "$dry_run" ]; then
  for ((id = 0; id < num_processes; id++)); do echo "$line $meet$id"; done
  exit 0
fi

running=()
# Background jobs of a script ignore Ctrl-C, so it becomes the signal on which all save. A second one ends them,
# unless it comes at once: `timeout` sends it to this script and to its group.
# After Ctrl-C the exit code is 130, because 42 means: start again.
told="" interrupted="" killed=""
# shellcheck disable=SC2329  # called by the traps
forward() {
  if [ -z "$told" ]; then
    told=$SECONDS
    kill -s TERM ${running[@]+"${running[@]}"} 2>/dev/null
  elif [ $((SECONDS - told)) -ge 2 ]; then
    killed=killed
    kill -s KILL ${running[@]+"${running[@]}"} 2>/dev/null
  fi
}
trap forward TERM HUP
trap 'interrupted=1; forward' INT

for ((id = 0; id < num_processes; id++)); do
  # shellcheck disable=SC2086  # three words
  "$python" "$@" $meet$id &
  running+=($!)
done

# Not `wait -n`, which bash 3.2 lacks.
status=0 deadline=""
while [ ${#running[@]} -gt 0 ]; do
  sleep 0.2
  left=()
  for pid in "${running[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      left+=("$pid")
      continue
    fi
    wait "$pid"
    code=$?
    if [ $code -eq 42 ]; then # saved and told to end: only a failure says more
      [ $status -eq 0 ] && status=42
    elif [ $code -ne 0 ] && [ -z "$deadline" ]; then # the first to fail; the others fail of it
      status=$code deadline=$((SECONDS + grace))
    fi
  done
  running=(${left[@]+"${left[@]}"})
  if [ -n "$deadline" ] && [ "$SECONDS" -ge "$deadline" ] && [ ${#running[@]} -gt 0 ]; then
    kill -s KILL "${running[@]}" 2>/dev/null
  fi
done
# A failure keeps its own code. 137 is none if the second signal killed.
if [ -n "$interrupted" ]; then
  case $status$killed in 42* | 137killed) status=130 ;; esac
fi
exit $status
