#!/usr/bin/env bash
# Before a container is taken away: lets the job save a checkpoint. A rank that gets SIGUSR1 makes all ranks of a training
# stop, on every host, and the job ends with exit code 75; this returns when the ranks of this container are gone. To be
# called where nothing else runs vqlm (launch/k8s/mpijob.yaml, preStop of the workers).
set -euo pipefail

ranks() {
  local process number name state
  for process in /proc/[0-9]*; do
    # It may end meanwhile. Z: it has ended, and its parent has not asked yet; not every first process of a container does.
    read -r number name state _ 2>/dev/null <"$process/stat" || continue
    if [ "$name" = "(vqlm)" ] && [ "$state" != Z ]; then echo "$number"; fi
  done
}

mapfile -t running < <(ranks)
if [ ${#running[@]} -eq 0 ]; then exit 0; fi
kill -USR1 "${running[@]}" 2>/dev/null || true
while [ -n "$(ranks)" ]; do sleep 0.5; done
