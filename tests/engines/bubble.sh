# bubblewrap on a union made by hand, as a plain user: work.sh in it, whose root is that user.
# Arguments: the program, the base image, work.sh.
set -eu
program=$1 base=$2 work=$3
mkdir lower upper workdir merged
tar -x -f "$base" -C lower --no-same-owner --exclude=./dev --exclude=./var/cache/apt --exclude=./etc/issue.net
mkdir lower/dev
"$program" --lower lower --upper upper --work workdir merged
in_it() {
    bwrap --unshare-all --uid 0 --gid 0 --die-with-parent --bind merged / --dev /dev --proc /proc \
        --chdir / "$@"
}
in_it sh -c "$work"
test "$(in_it /usr/local/bin/compiled)" = compiled
in_it sh -euc 'echo "$(id -u)" >/srv/id; test ! -e /etc/host.conf; test "$(stat -c %u /srv/id)" = 0'
test "$(cat upper/srv/id)" = 0
test -e lower/etc/host.conf
test ! -e lower/srv/id
"$program" umount merged
