#!/usr/bin/env bash
# Give the node image to the cluster's own Docker daemon, unless it has this very one.
# usage: import-image.sh NAME:TAG
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export DOCKER_HOST=unix://$state/docker.sock DOCKER_CONFIG=$state/docker-config
key=$(cat "$node/node.key")
[[ $(docker image inspect -f '{{index .Config.Labels "key"}}' "$1" 2>/dev/null) == "$key" ]] && exit 0
docker import "$node/node.tar" localhost/node-root:latest >/dev/null
# `import` knows no STOPSIGNAL; without it `docker restart` would wait for systemd and then kill it.
DOCKER_BUILDKIT=0 docker build -q -t "$1" - >/dev/null <<D
FROM localhost/node-root:latest
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
ENV container=docker
LABEL key=$key
STOPSIGNAL SIGRTMIN+3
D
docker image prune -f >/dev/null
