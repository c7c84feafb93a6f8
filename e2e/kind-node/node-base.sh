#!/usr/bin/env bash
# The Debian part of a node's root filesystem, kept as a tar of its own: it changes only with the package list.
# Prints the tar's path. It needs no program of ours, so it can be made while those are built.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
alone "$node/base"
suite=bookworm
packages=systemd,systemd-sysv,dbus,containerd,runc,containernetworking-plugins,iptables,nftables,iproute2,kmod,conntrack,socat,ethtool,ebtables,ipset,util-linux,mount,procps,ca-certificates,findutils,jq,hostname,libseccomp2
key=$(echo "$suite $packages" | sha256sum | cut -c1-16)
base=$node/base-$key.tar
if [[ ! -s $base ]]; then
  root=$node/base-root
  # The mirror is the one this machine's apt uses for the suite's main archive.
  mirror=${FUSEBOX_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' | awk -v s="$suite" '$1 == s && $2 == "main" {print $3; exit}')}
  rm -rf "$root"; mkdir -p "$node/debs"
  DEBOOTSTRAP_DIR=$debian/root/usr/share/debootstrap "$debian/root/usr/sbin/debootstrap" --variant=minbase --cache-dir="$node/debs" \
    --include="$packages" "$suite" "$root" "$mirror" >"$node/debootstrap.log" 2>&1 || { tail -5 "$node/debootstrap.log" >&2; exit 1; }
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,info,lintian}/* "$root"/var/log/*.log
  tar -C "$root" --one-file-system -c . >"$base.part"; mv "$base.part" "$base"
  rm -rf "$root"
fi
echo "$base"
