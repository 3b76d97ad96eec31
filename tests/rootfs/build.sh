#!/bin/sh
# Runs a command in a root that may use the host's network and one cache of packages for all layers.
# Called in a mount namespace of its own: ROOT CACHE COMMAND...
set -eu
root=$1 cache=$2
shift 2
mount --bind "$cache/lists" "$root/var/lib/apt/lists"
mount --bind "$cache/archives" "$root/var/cache/apt/archives"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C \
    DEBIAN_FRONTEND=noninteractive "$@"
