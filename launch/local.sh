#!/usr/bin/env bash
# Starts a run on this machine, in one or several processes. See docs/launch.md. Works with bash 3.2 of macOS.
set -u

usage="usage: launch/local.sh --config=FILE --workdir=DIR [--config.KEY=VALUE ...]
  --num_processes=N  number of processes of the run (default: 1, which uses all local devices)
  --port=P           port on 127.0.0.1 through which the processes connect (default: a free port)
  --dry_run          print the commands and start nothing
The environment variable PYTHON names the interpreter (default: .venv/bin/python if it exists, or python3)."

# After one process has failed, the other processes have this number of seconds to end. They get no SIGTERM,
# because SIGTERM requests a save, and a save needs all processes.
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
[[ $num_processes =~ ^[1-9][0-9]*$ ]] || fail "--num_processes=$num_processes: expected a whole number, 1 or more"
[[ $port =~ ^[0-9]*$ ]] || fail "--port=$port: expected a port number"

line=$("$python" launch/command.py "$@") || exit 1
eval "set -- $line" # safe, because command.py quotes the words. The printed command is the command that runs
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
# Background jobs of a script ignore Ctrl-C. So this script sends SIGTERM to the processes after Ctrl-C. After
# SIGTERM they save and stop. A second signal kills them. A second signal within 2 seconds is ignored, because
# `timeout` sends its signal twice: to this script and to its process group.
# After Ctrl-C the exit code is 130 and not 42, because 42 means that the run must start again.
first_signal="" interrupted="" killed=""
# shellcheck disable=SC2329  # called by the traps
forward() {
  if [ -z "$first_signal" ]; then
    first_signal=$SECONDS
    kill -s TERM ${running[@]+"${running[@]}"} 2>/dev/null
  elif [ $((SECONDS - first_signal)) -ge 2 ]; then
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

# The loop polls, because bash 3.2 has no `wait -n`.
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
    if [ $code -eq 42 ]; then # saved and stopped. The code of a failed process has priority over 42
      [ $status -eq 0 ] && status=42
    elif [ $code -ne 0 ] && [ -z "$deadline" ]; then # the first failure causes the failures of the others
      status=$code deadline=$((SECONDS + grace))
    fi
  done
  running=(${left[@]+"${left[@]}"})
  if [ -n "$deadline" ] && [ "$SECONDS" -ge "$deadline" ] && [ ${#running[@]} -gt 0 ]; then
    kill -s KILL "${running[@]}" 2>/dev/null
  fi
done
# A failure keeps its own code. But 137 after a second Ctrl-C is no failure, because this script sent the kill.
if [ -n "$interrupted" ]; then
  case $status$killed in 42* | 137killed) status=130 ;; esac
fi
exit $status
