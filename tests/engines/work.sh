# What is done in a container: a package installed, a program compiled, the package removed; and every
# way in which a layer can differ from the one below.
set -eu
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive

dpkg -i /debs/tcc_*.deb
printf '#include <stdio.h>\nint main(void) { puts("compiled"); return 0; }\n' >/srv/a.c
tcc -o /usr/local/bin/compiled /srv/a.c
test "$(compiled)" = compiled
dpkg -P tcc
test ! -e /usr/bin/tcc

rm /etc/host.conf                                   # a lower file goes
rm -r /usr/share/common-licenses                    # a lower directory goes
rm -r /etc/skel && mkdir /etc/skel && echo new >/etc/skel/new   # one is made anew
rm /etc/debian_version && mkdir -p /etc/debian_version/d        # a directory where a file was
rm -r /usr/share/keyrings && echo file >/usr/share/keyrings     # and the other way round
mv /usr/share/perl5 /usr/share/perl5.moved
mv /usr/share/base-files /opt/ && mv /opt/base-files /usr/share/base-files.back
chmod 4711 /usr/bin/chfn && chown 7:8 /etc/issue.net
echo more >>/etc/issue
ln /usr/bin/tac /usr/bin/tac.link && ln -s tac.link /usr/bin/tac.symlink
mkfifo -m 640 /srv/fifo
truncate -s 1M /srv/sparse && touch -d 2001-02-03 /srv/sparse /srv
mkdir -m 1777 /srv/sticky && mkdir -m 2750 /srv/setgid && chgrp 7 /srv/setgid && chmod g+s /srv/setgid
touch '/srv/a name, "with" \ everything:'
touch /root/gone && rm /root/gone
