# Sourced by the scripts beside it: where things are, and what on this machine belongs to the cluster.
# Callers give absolute folders: FUSEBOX_CACHE (programs, packages, images) and FUSEBOX_STATE (one cluster's daemon).
set -euo pipefail
: "${FUSEBOX_CACHE:?}" "${FUSEBOX_STATE:?}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$FUSEBOX_CACHE state=$FUSEBOX_STATE
debian=$cache/debian          # packages, and what was unpacked of them
node=$cache/node              # the node image's parts
bridge=${FUSEBOX_BRIDGE:-fusebox0} net=${FUSEBOX_SUBNET:-172.30.7}
# The cgroup parent of every container of this state, and so the mark of their processes.
group=fusebox-$(sha256sum <<<"$state" | cut -c1-8)
# The interpreter itself, not a version manager's shim, which would run a shell for each container.
python=$(python3 -c 'import sys; print(sys.executable)')
export PATH=$cache/bin:$debian/root/usr/bin:$debian/root/usr/sbin:/usr/local/sbin:/usr/sbin:/sbin:$PATH
mkdir -p "$cache" "$state" "$debian" "$node"

# Hold a lock that children inherit: what a killed run left running ends before the next one begins.
alone() { exec 9>"$1.lock"; flock -w 600 9; }
say() { printf '%s\n' "$*" >&2; }

# Daemons and shims are ours by the state's path in their arguments, container processes by their cgroup.
pids() {
  "$python" - "$state" "$group" <<'PY'
import glob, os, sys
state, group = sys.argv[1:]
daemons = {"dockerd", "containerd", "containerd-shim-runc-v2", "containerd-shim", "docker-proxy", "runc"}
found = []
for folder in glob.glob("/proc/[0-9]*"):
    try:
        args = open(folder + "/cmdline", "rb").read().decode("utf-8", "replace").split("\0")
        cgroups = open(folder + "/cgroup").read()
        dead = open(folder + "/stat").read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        continue
    daemon = os.path.basename(args[0]) in daemons and any(state + "/" in a for a in args)
    # One that is dead and waits for its parent's notice is nobody's to end.
    if not dead and (daemon or f":/{group}/" in cgroups):
        found.append(int(folder[6:]))
print(*sorted(found))
PY
}
mounts() { awk -v s="$state/" 'index($5, s) == 1 {print $5}' /proc/self/mountinfo | sort -r; }
has_bridge() { ip link show "$bridge" >/dev/null 2>&1; }
cgroups() { compgen -G "/sys/fs/cgroup/*/$group" || compgen -G "/sys/fs/cgroup/$group" || true; }
alive() { [[ -S $state/docker.sock ]] && timeout 10 docker version >/dev/null 2>&1; }
