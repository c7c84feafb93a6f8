#!/usr/bin/env bash
# A Docker daemon of the cluster's own, and the exact end of everything it made.
#
#   daemon.sh start     start it, after sweeping what a crash left; its bridge and network too
#   daemon.sh wipe      remove the cluster, containers, volumes and network of the daemon that answers
#   daemon.sh stop      wipe, end the daemon, sweep, and put the machine's rules back as they were
#   daemon.sh check     print whatever of this state is on the machine; fails if anything is
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export DOCKER_HOST=unix://$state/docker.sock DOCKER_CONFIG=$state/docker-config KUBECONFIG=$state/kubeconfig
before=$state/before          # the machine's firewall and switches as they were before the daemon

# Empty folders that dockerd and containerd make wherever they run.
made=(/run/docker/plugins /run/docker /run/containerd/s /run/containerd /opt/containerd/bin /opt/containerd/lib /opt/containerd)

rules() { iptables-save -t "$1" 2>/dev/null | grep -E '^-A ' | grep -E -- "$2" || true; }
chains() { # FAMILY TABLE CHAIN lines
  nft -j list chains 2>/dev/null | "$python" -c 'import json, sys
for o in json.load(sys.stdin)["nftables"]:
    if "chain" in o: print(o["chain"]["family"], o["chain"]["table"], o["chain"]["name"])' | sort
}

remember() { # once per life of the daemon
  [[ -d $before ]] && return 0
  local part=$before.part s
  rm -rf "$part"; mkdir -p "$part"
  iptables-save -t filter 2>/dev/null | sed -n 's/^:FORWARD \([A-Z]*\).*/\1/p' >"$part/forward"
  nft list tables 2>/dev/null | sort >"$part/tables"
  chains >"$part/chains"
  for s in net/ipv4/ip_forward net/ipv4/conf/all/forwarding net/ipv6/conf/all/forwarding net/ipv6/conf/default/forwarding \
    net/bridge/bridge-nf-call-iptables net/bridge/bridge-nf-call-ip6tables; do
    [[ -e /proc/sys/$s ]] && echo "$s $(cat "/proc/sys/$s")"
  done >"$part/switches" || true
  iptables-save -t filter 2>/dev/null | grep -q '^:DOCKER' && touch "$part/docker-was-here"
  for s in "${made[@]}"; do [[ -d $s ]] || echo "$s"; done >"$part/folders"
  mv "$part" "$before"
}
restore() {
  [[ -d $before ]] || return 0
  local policy switch value family table chain folder
  policy=$(cat "$before/forward"); [[ -z $policy ]] || iptables -w -P FORWARD "$policy"
  while read -r switch value; do
    [[ $(cat "/proc/sys/$switch") == "$value" ]] || echo "$value" >"/proc/sys/$switch"
  done <"$before/switches"
  # iptables-nft makes tables and base chains on first use: those that were not there and are empty go again
  # (nft refuses to delete one that holds a rule).
  chains | comm -13 "$before/chains" - | while read -r family table chain; do
    [[ $family == ip || $family == ip6 ]] && nft delete chain "$family" "$table" "$chain" 2>/dev/null || true
  done
  nft list tables 2>/dev/null | sort | comm -13 "$before/tables" - | while read -r _ family table; do
    [[ -n $(chains | awk -v f="$family" -v t="$table" '$1 == f && $2 == t') ]] || nft delete table "$family" "$table"
  done
  while read -r folder; do rmdir "$folder" 2>/dev/null || true; done < <(cat "$before/folders" 2>/dev/null)
  rm -rf "$before"
}
drop_rules() { # ours; and Docker's chains, unless they were there before
  local table line pattern="(-i|-o) $bridge( |\$)|-s $net\\.0/24|-[sd] $net\\.[0-9]+/32"
  [[ -e $before/docker-was-here ]] || pattern+="|DOCKER"
  for table in filter nat raw mangle; do
    rules "$table" "$pattern" | while IFS= read -r line; do
      eval "set -- ${line#-A }"; iptables -w -t "$table" -D "$@" 2>/dev/null || true
    done
    [[ -e $before/docker-was-here ]] && continue
    iptables-save -t "$table" 2>/dev/null | sed -n 's/^:\(DOCKER[^ ]*\) .*/\1/p' | while read -r line; do
      iptables -w -t "$table" -F "$line" 2>/dev/null || true
      iptables -w -t "$table" -X "$line" 2>/dev/null || true
    done
  done
}
others() { # state folders of clusters that are not this one: there is one bridge and one set of ports
  ps -eo args | sed -n 's#^dockerd --data-root \(.*\)/data --exec-root .* --cgroup-parent /fusebox-.*#\1#p' | grep -vxF "$state" || true
}
end_pids() { # GRACE: SIGTERM for GRACE rounds of 0.2 s, then SIGKILL
  local round left signal=TERM
  for round in $(seq 60); do
    left=$(pids); [[ -z $left ]] && return 0
    ((round <= $1)) || signal=KILL
    kill -$signal $left 2>/dev/null || true
    sleep 0.2
  done
  left=$(pids); [[ -z $left ]] || { say "processes that do not end: $left"; return 1; }
}
sweep() { # whatever a daemon or cluster left; GRACE as above
  end_pids "$1"
  local x
  for x in $(mounts); do umount -l "$x" 2>/dev/null || true; done
  if [[ -n $(others) ]]; then
    say "the bridge and its rules stay: they are another cluster's"
  else
    bridge_and_rules
  fi
  for x in $(cgroups); do find "$x" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
  rm -rf "$state"/{exec,docker.sock,docker.pid,kubeconfig,kubeconfig.lock,docker-config}
}
bridge_and_rules() {
  local x
  if has_bridge; then
    for x in $(ip -o link show master "$bridge" | awk -F'[ :@]+' '{print $2}'); do ip link del "$x" 2>/dev/null || true; done
    ip link del "$bridge" 2>/dev/null || true
  fi
  drop_rules
}

start() {
  alive && { network; return 0; }
  local other; other=$(others)
  [[ -z $other ]] || { say "another cluster is up, with its state in $other: take it down first (FUSEBOX_STATE=$other)"; return 1; }
  if [[ -n $(pids)$(mounts) ]] || has_bridge; then say "sweeping what an earlier run left"; sweep 0; fi
  remember
  mkdir -p "$state/data" "$state/exec" "$state/docker-config" "$state/lib"
  # A machine without CAP_SYS_RESOURCE cannot give it to a privileged container: runc gets its bundle without.
  cp "$here/lib/runc_without_sys_resource.py" "$state/lib/"
  printf '#!/bin/sh\nexec %s -ISE %s "$@"\n' "$python" "$state/lib/runc_without_sys_resource.py" >"$state/lib/runc"
  chmod +x "$state/lib/runc"
  echo "{\"deprecated-key-path\": \"$state/key.json\"}" >"$state/daemon.json"
  REAL_RUNC=$(command -v runc) setsid nohup dockerd --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/docker.pid" \
    --host "$DOCKER_HOST" --config-file "$state/daemon.json" --bridge none --cgroup-parent "/$group" --storage-driver overlay2 \
    --add-runtime "plain=$state/lib/runc" --default-runtime plain --oom-score-adjust 0 --log-opt max-size=20m \
    --userland-proxy-path "$debian/root/usr/sbin/docker-proxy" >"$state/dockerd.log" 2>&1 </dev/null &
  local round
  for round in $(seq 150); do
    alive && { network; return 0; }
    kill -0 $! 2>/dev/null || break
    sleep 0.2
  done
  say "dockerd did not come up; the end of $state/dockerd.log:"; tail -5 "$state/dockerd.log" >&2; return 1
}
network() { # by hand, so that the bridge has a name that can be cleaned up exactly
  docker network inspect "$bridge" >/dev/null 2>&1 && return 0
  docker network create -d bridge --subnet "$net.0/24" --gateway "$net.1" -o com.docker.network.bridge.name="$bridge" \
    -o com.docker.network.bridge.enable_ip_masquerade=true "$bridge" >/dev/null
}
wipe() {
  local all
  all=$(docker ps -aq); [[ -z $all ]] || docker rm -fv $all >/dev/null 2>&1 || true
  docker volume prune -f >/dev/null 2>&1 || true
  docker network rm "$bridge" >/dev/null 2>&1 || true
}
stop() {
  local pid round
  if alive; then wipe; fi
  if pid=$(cat "$state/docker.pid" 2>/dev/null) && [[ " $(pids) " == *" $pid "* ]]; then
    kill "$pid"; for round in $(seq 75); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
  fi
  sweep 30
  if [[ -z $(others) ]]; then restore; fi
  rm -rf "$before"
}
check() {
  local rc=0 x
  x=$(pids); [[ -z $x ]] || { echo "processes: $x"; rc=1; }
  x=$(mounts); [[ -z $x ]] || { echo "mounts: $x"; rc=1; }
  if [[ -z $(others) ]]; then
    ! has_bridge || { echo "bridge: $bridge"; rc=1; }
    x="$bridge|$net\\."; pgrep -x dockerd >/dev/null || x+="|DOCKER"
    x=$(iptables-save 2>/dev/null | grep -E "$x" || true); [[ -z $x ]] || { echo "rules: $x"; rc=1; }
  fi
  x=$(cgroups); [[ -z $x ]] || { echo "cgroups: $x"; rc=1; }
  return $rc
}
case ${1:-} in
  start | wipe | stop | check) "$1";;
  *) sed -n '2,8p' "${BASH_SOURCE[0]}"; exit 2;;
esac
