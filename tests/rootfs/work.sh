#!/bin/sh
# The work that both unions are put through: run by chroot in a Debian root, without a network.
# What a program answers goes to files in /result, which are compared as all other files are.
set -eu
umask 022
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C TZ=UTC
export DEBIAN_FRONTEND=noninteractive SOURCE_DATE_EPOCH=1700000000 PYTHONHASHSEED=0
R=/result
mkdir -p "$R"

step() {
    echo "$(date +%s.%N) $1" >>"$R/timings"
    echo "== $1"
}

do_packages() {
    dpkg -V >"$R/verify-before" || echo "status $?" >>"$R/verify-before"
    apt-get install -y -q --no-install-recommends --reinstall /debs/*.deb
    getcap /usr/bin/ping >"$R/capabilities"
    stat -c '%n %a %U %G' /usr/bin/ssh-agent /usr/bin/passwd /usr/bin/mount >"$R/set-id"
    file /usr/bin/python3.11 /bin/sh /etc/passwd >"$R/file"
    tree -a --noreport /usr/lib/python3.11/json >"$R/tree"
    perl -e 'print "perl works\n"' >"$R/perl"
    dpkg --purge tree
    dpkg --audit >"$R/audit"
}

do_program() {
    mkdir -p /srv/program/src
    cd /srv/program
    printf 'int twice(int);\nint thrice(int);\n' >src/all.h
    printf '#include "all.h"\nint twice(int n) { return 2 * n; }\n' >src/twice.c
    printf '#include "all.h"\nint thrice(int n) { return 3 * n; }\n' >src/thrice.c
    cat >src/main.c <<'END'
#include <stdio.h>
#include "all.h"
int main(void) {
    printf("%d %d\n", twice(21), thrice(14));
    return 0;
}
END
    cat >Makefile <<'END'
CFLAGS = -O2 -g -Wall -Werror
program: src/main.o libnumbers.a
	gcc -o $@ src/main.o -L. -lnumbers
libnumbers.a: src/twice.o src/thrice.o
	rm -f $@
	ar rcsD $@ src/twice.o src/thrice.o
src/%.o: src/%.c src/all.h
	gcc $(CFLAGS) -c -o $@ $<
END
    make -j2
    ./program >"$R/program"
    make | tee "$R/make-again"
    sleep 1.1
    touch src/all.h
    make -n | sort >"$R/make-after-touch"
    make -j2
    gcc -shared -fPIC -o libtwice.so src/twice.c
    strip -o stripped program
    ./stripped >>"$R/program"
}

do_python() {
    python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3.11
    python3 -c 'import json, sqlite3, ssl, email, xml.dom; print("imports work")' >"$R/python"
    cat >/srv/files.py <<'END'
import mmap, os, shutil, tempfile
shutil.copytree("/usr/lib/python3.11/email", "/srv/email", symlinks=True)
with open("/srv/email/__init__.py", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0)
    m[0:5] = b"HELLO"
    m.flush()
    assert os.pread(f.fileno(), 5, 0) == b"HELLO"
with tempfile.TemporaryDirectory(dir="/srv") as d:
    for n in range(500):
        p = os.path.join(d, f"f{n}")
        with open(p + ".new", "w") as f:
            f.write(str(n))
            os.fsync(f.fileno())
        os.replace(p + ".new", p)
    print(len(os.listdir(d)), sum(int(open(os.path.join(d, n)).read()) for n in os.listdir(d)))
END
    python3 /srv/files.py >>"$R/python"
}

do_git() {
    export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
    git config --global user.name Tester
    git config --global user.email tester@example.org
    git config --global init.defaultBranch main
    git config --global pack.threads 1
    git config --global gc.auto 0
    mkdir -p /srv/git/one
    cd /srv/git/one
    git init -q
    cp -a /usr/lib/python3.11/json /usr/lib/python3.11/asyncio /usr/lib/python3.11/email .
    git add .
    git commit -q -m first
    git clone -q /srv/git/one /srv/git/two
    git clone -q file:///srv/git/one /srv/git/three
    cd /srv/git/two
    git checkout -q -b side
    git mv json renamed
    sed -i 's/import/IMPORT/' renamed/decoder.py
    rm -r email
    git add -A
    git commit -q -m second
    git checkout -q main
    echo line >new.txt
    git add new.txt
    git commit -q -m third
    git merge -q -m merged side
    git push -q origin HEAD:refs/heads/merged
    git gc -q --prune=now
    git fsck --full --strict >"$R/git-fsck" 2>&1
    git worktree add -q /srv/git/four side
    cd /srv/git/one
    git merge -q merged
    git gc -q --prune=now
    for tree in one two three four; do
        cd /srv/git/$tree
        { echo "$tree"; git status --porcelain; git rev-parse HEAD; git ls-files -s; } >>"$R/git"
    done
}

do_tar() {
    normal='--sort=name --format=posix --mtime=@1700000000 --numeric-owner
        --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime'
    # shellcheck disable=SC2086
    tar -C / $normal --acls --xattrs --xattrs-include='*' -cf /srv/etc.tar etc
    # shellcheck disable=SC2086
    tar -C / $normal -czf /srv/share.tar.gz usr/share/perl usr/share/zoneinfo usr/bin
    mkdir /srv/untarred
    tar -C /srv/untarred --acls --xattrs --xattrs-include='*' -xpf /srv/etc.tar
    tar -C /srv/untarred -xpzf /srv/share.tar.gz
    diff -r --no-dereference /etc /srv/untarred/etc
    diff -r --no-dereference /usr/bin /srv/untarred/usr/bin
    tar -C / -cf /srv/plain.tar usr/lib/git-core
    tar -C / -df /srv/plain.tar
    rm /srv/plain.tar
}

do_rsync() {
    mkdir /srv/copies
    for tree in usr/share etc usr/lib/git-core; do
        rsync -aHAX "/$tree/" "/srv/copies/$(basename $tree)/"
        rsync -aHAXc -n --itemize-changes --delete \
            "/$tree/" "/srv/copies/$(basename $tree)/" >>"$R/rsync-again"
    done
    test ! -s "$R/rsync-again"
    echo changed >>/srv/copies/etc/hostname
    rsync -aHAXc --itemize-changes --delete /etc/ /srv/copies/etc/ >"$R/rsync-repairs"
}

do_sqlite() {
    cat >/srv/writer.py <<'END'
import sqlite3, sys
who, n = sys.argv[1], 300
db = sqlite3.connect("/srv/data.db", timeout=60, isolation_level=None)
for i in range(n):
    db.execute("begin immediate")
    for k in range(5):
        db.execute("insert into t values(?, ?, ?)", (who, 5 * i + k, who * (i % 700)))
    if i % 3 == 2:
        db.execute("delete from t where who = ? and n = ?", (who, 5 * i))
    db.execute("commit")
    rows = db.execute("select count(*) from t where who = ?", (who,)).fetchone()[0]
    assert rows == 5 * (i + 1) - (i + 1) // 3, (i, rows)
END
    sqlite3 /srv/data.db 'pragma journal_mode=wal;
        create table t(who, n, body, primary key(who, n)) without rowid;' >"$R/sqlite"
    python3 /srv/writer.py a &
    first=$!
    python3 /srv/writer.py b &
    second=$!
    wait $first
    wait $second
    sqlite3 /srv/data.db 'pragma integrity_check; pragma wal_checkpoint(truncate);
        pragma journal_mode=delete; pragma integrity_check; select who, count(*) from t group by who;' \
        >>"$R/sqlite"
    sqlite3 /srv/data.db .dump | sha256sum >>"$R/sqlite"
    cp /srv/data.db /srv/copy.db
    sqlite3 /srv/copy.db 'delete from t where n % 2; vacuum; pragma integrity_check;' >>"$R/sqlite"
}

do_trees() {
    rm -rf /usr/share/doc
    cp -a /usr/share/zoneinfo /srv/zoneinfo
    diff -r --no-dereference /usr/share/zoneinfo /srv/zoneinfo
    mv /usr/share/perl /srv/perl-moved
    mv /srv/zoneinfo/Europe /srv/europe
    mv /srv/zoneinfo /srv/zones
    mv /etc/profile /etc/profile.moved
    mkdir /usr/share/perl
    echo new >/usr/share/perl/new
    rm -r /usr/lib/python3.11/idlelib /usr/lib/python3.11/test 2>/dev/null || true
    rm -rf /usr/lib/python3.11/email
    cp -a /usr/lib/python3.11/json /usr/lib/python3.11/email
    ln /usr/bin/sqlite3 /srv/sqlite3-link
    ln /srv/sqlite3-link /srv/sqlite3-third
    rm /usr/bin/sqlite3
    ln -s /srv/sqlite3-third /usr/bin/sqlite3
    sqlite3 :memory: 'select 6 * 7;' >"$R/linked-sqlite"
    chmod 0700 /srv/sqlite3-link
    stat -c '%n %h %a' /srv/sqlite3-link /srv/sqlite3-third >>"$R/linked-sqlite"
    for n in 1 2 3; do
        echo "$n" >>/etc/services
    done
    sed -i 's/root/ROOT/' /etc/aliases.changed
    mkfifo /srv/fifo
    mknod /srv/null c 1 3
    echo gone >/srv/null
    truncate -s 10M /srv/sparse
    truncate -s 100 /usr/bin/rsync-ssl
    dd if=/dev/urandom of=/dev/null bs=64k count=4 2>/dev/null
}

do_users() {
    groupadd workers
    useradd -m -G workers -s /bin/sh alice
    useradd -m bob
    usermod -c Alice alice
    userdel -r bob
    install -d -o root -g workers -m 2775 /srv/shared
    setfacl -m u:alice:rwx -d -m u:alice:rwx,g:workers:rx /usr/local/share
    runuser -u alice -- sh -c '
        id; echo mine >~/mine; mkdir /srv/shared/dir; echo x >/srv/shared/dir/file
        echo y >/usr/local/share/inherits; ln -s ~/mine /tmp/link; chmod u+s ~/mine; mv ~/mine ~/still
        cat /etc/shadow; echo z >/etc/no; rm /etc/passwd; chown root ~/still; ls ~' >"$R/alice" 2>&1 ||
        echo "status $?" >>"$R/alice"
    getfacl -pR /usr/local/share >"$R/acls"
}

do_look() {
    find / -xdev -path "$R" -prune -o -not -type d -printf '%p %y %m %U %G %n %l\n' | sort >"$R/find-files"
    find / -xdev -path "$R" -prune -o -type d -printf '%p %m %U %G\n' | sort >"$R/find-dirs"
    find /usr -xdev -type f -links +1 -printf '%p\n' | sort >"$R/find-links"
    dpkg -V >"$R/verify-after" || echo "status $?" >>"$R/verify-after"
    sync
}

# All steps in their order, or those that are named.
for name in ${*:-packages program python git tar rsync sqlite trees users look}; do
    step "$name"
    cd /
    "do_$name"
done
step end
