#!/usr/bin/env bash
# The root filesystem of a kind node from Debian packages and the programs in the cache, as one tar to import.
# Rebuilt only when an input changed. usage: build-image.sh KUBERNETES_VERSION   result: CACHE/node/node.tar
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
alone "$node/image"
k8s=$1 bin=$cache/bin

key=$({ echo "$k8s"; cat "$here"/{build-image,node-base}.sh "$here"/lib/pause.c "$here"/lib/archive.py "$here"/node/*; (cd "$bin" && readlink -f kube* etcd coredns); } | sha256sum | cut -c1-16)
[[ -s $node/node.tar && $(cat "$node/node.key" 2>/dev/null) == "$key" ]] && exit 0
root=$node/rootfs

# 1. the Debian part
base=$("$here/node-base.sh")

# 2. the node's files
say "node filesystem"
rm -rf "$root"; mkdir -p "$root"; tar -C "$root" -xf "$base"
install -m755 "$bin"/{kubelet,kubeadm,kubectl} "$root/usr/bin/"
install -d "$root"/kind/{images,manifests} "$root"/opt/cni "$root"/etc/{cni/net.d,containerd,kind-node,kubernetes/manifests,modules-load.d} "$root"/var/lib/kubelet "$root"/usr/local/bin
echo "$k8s" >"$root/kind/version"
ln -sfn /usr/lib/cni "$root/opt/cni/bin"
install -m644 "$here"/node/default-*.yaml "$root/kind/manifests/"
install -m755 "$here"/node/{entrypoint,load-images,kubelet-cgroups,crictl} "$root/usr/local/bin/"
install -m644 "$here"/node/{load-images,kubelet}.service "$root/etc/systemd/system/"
install -m644 "$here/node/bridge.conflist.in" "$root/etc/kind-node/"
# image names come from kubeadm itself, so no registry is named here
mapfile -t names < <("$bin/kubeadm" config images list --kubernetes-version "$k8s" 2>/dev/null)
name() { local n; for n in "${names[@]}"; do [[ $n == */"$1":* ]] && { echo "$n"; return; }; done; echo "no image name for $1" >&2; exit 1; }
pause=$(name pause)
sed "s#@PAUSE@#$pause#" "$here/node/containerd.toml.in" >"$root/etc/containerd/config.toml"
rm -f "$root"/etc/cni/net.d/*
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"; }
in_root systemctl enable containerd load-images kubelet >/dev/null 2>&1
in_root systemctl set-default multi-user.target >/dev/null 2>&1
in_root systemctl mask systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-udev-trigger.service \
  systemd-logind.service getty.target console-getty.service getty@.service systemd-sysctl.service systemd-modules-load.service \
  systemd-remount-fs.service systemd-update-utmp.service systemd-pstore.service sys-kernel-debug.mount sys-kernel-tracing.mount \
  dev-hugepages.mount apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer e2scrub_reap.service \
  systemd-resolved.service systemd-networkd.service systemd-timesyncd.service >/dev/null 2>&1
: >"$root/etc/machine-id"; rm -f "$root"/etc/{hostname,resolv.conf} "$root"/var/lib/dbus/machine-id
# a node's shutdown must fit into docker's 10 s: pods that ignore SIGTERM get 2 s, not 90
mkdir -p "$root/etc/systemd/system.conf.d"; printf '[Manager]\nDefaultTimeoutStopSec=2s\n' >"$root/etc/systemd/system.conf.d/node.conf"
mkdir -p "$root/etc/systemd/journald.conf.d"; printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\n' >"$root/etc/systemd/journald.conf.d/node.conf"

# 3. the cluster's images
say "images"
a="$python $here/lib/archive.py" out=$root/kind/images
gcc -Os -static -s -o "$node/pause" "$here/lib/pause.c"
$a "$out/pause.tar" --entrypoint '["/pause"]' --tag "$pause" -- "pause=$node/pause"
$a "$out/coredns.tar" --entrypoint '["/coredns"]' --tag "$(name coredns)" -- "coredns=$bin/coredns" "etc/ssl/certs/ca-certificates.crt=$root/etc/ssl/certs/ca-certificates.crt"
cp=(); for c in kube-apiserver kube-controller-manager kube-scheduler etcd; do cp+=(--tag "$(name $c)"); done
$a "$out/control-plane.tar" "${cp[@]}" -- $(for c in kube-apiserver kube-controller-manager kube-scheduler etcd; do echo "usr/local/bin/$c=$bin/$c"; done) tmp=dir "etc/ssl/certs/ca-certificates.crt=$root/etc/ssl/certs/ca-certificates.crt"
# kube-proxy drives iptables, nft and conntrack: these and every library they and the xtables
# extensions load (libxt_statistic wants libm: without it every Service with two endpoints fails)
progs=(/usr/sbin/xtables-nft-multi /usr/sbin/nft /usr/sbin/conntrack /usr/sbin/ipset /usr/bin/kmod)
mapfile -t libs < <(in_root sh -c "ldd ${progs[*]} /usr/lib/x86_64-linux-gnu/xtables/*.so" | grep -oE '/[^ ]+\.so[^ ]*' | grep -v ':$' | sort -u)
parts=("usr/local/bin/kube-proxy=$bin/kube-proxy" "usr/lib/x86_64-linux-gnu/xtables=$root/usr/lib/x86_64-linux-gnu/xtables" tmp=dir run=dir)
for p in "${progs[@]}"; do parts+=("${p#/}=$root$p"); done
for l in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do parts+=("usr/sbin/$l=link:xtables-nft-multi"); done
parts+=("usr/sbin/modprobe=link:../bin/kmod" "sbin=link:usr/sbin" "lib64=link:usr/lib64" "lib=link:usr/lib")
for l in "${libs[@]}"; do
  r=$(realpath -m "$root$l"); case $l in /lib/*|/lib64/*) d=usr$l;; *) d=${l#/};; esac
  [[ -f $r ]] || r=$(in_root readlink -f "$l" | sed "s#^#$root#")
  cp -L --remove-destination "$r" "$node/.lib-${l##*/}"; parts+=("$d=$node/.lib-${l##*/}")
done
$a "$out/kube-proxy.tar" --tag "$(name kube-proxy)" -- "${parts[@]}"
rm -f "$node"/.lib-*

say "node.tar"
tar -C "$root" --one-file-system -c . >"$node/node.tar.part"; mv "$node/node.tar.part" "$node/node.tar"
rm -rf "$root"
echo "$key" >"$node/node.key"
say "node.tar $(stat -c %s "$node/node.tar" | numfmt --to=iec)"
