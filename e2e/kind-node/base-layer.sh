#!/usr/bin/env bash
# The base of our images: Debian's libc6, libgcc-s1 and ca-certificates, as their packages lay them out.
# usage: base-layer.sh FOLDER     FOLDER appears whole or not at all
set -euo pipefail
part=$1.part
rm -rf "$part"; mkdir -p "$part/deb" "$part/root"
(
  cd "$part/deb"
  get() { apt-get download libc6 libgcc-s1 ca-certificates; }
  get || { apt-get update && get; }
)
for package in "$part"/deb/*.deb; do dpkg -x "$package" "$part/root"; done
root=$part/root
# What `update-ca-certificates` would write on installation.
mkdir -p "$root/etc/ssl/certs"
cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
# No documentation, translations or character sets beside UTF-8: 15 MB that no service of ours reads.
rm -rf "$root"/usr/share "$root"/usr/sbin "$root"/etc/{ca-certificates*,ld.so.conf.d} "$root"/usr/lib/*/{gconv,audit}
# Suites after bookworm ship only below usr, and the loader's path is /lib64.
for folder in lib lib64; do [[ -e $root/$folder || ! -e $root/usr/$folder ]] || ln -s "usr/$folder" "$root/$folder"; done
echo 'nonroot:x:65532:65532:nonroot:/:/usr/sbin/nologin' >"$root/etc/passwd"
echo 'nonroot:x:65532:' >"$root/etc/group"
mv "$root" "$1"
rm -rf "$part"
