#!/bin/sh
# The topmost lower: what an image's last step leaves behind, removals above all.
set -eu
rm -rf /usr/share/locale
rm -rf /usr/share/man
rm -rf /usr/share/bug
mkdir /usr/share/bug
echo replaced >/usr/share/bug/README
rm -rf /usr/share/lintian
rm -rf /usr/share/common-licenses
echo file >/usr/share/common-licenses
rm /etc/issue.net
mkdir /etc/issue.net
echo dir >/etc/issue.net/file
echo "root: nobody" >/etc/aliases.changed
echo changed >>/etc/issue
chmod 0600 /etc/debian_version
chown 1:2 /etc/host.conf
setfattr -n user.note -v text /etc/fstab
setfacl -m u:7:r /etc/fstab
ln /usr/bin/diff /usr/local/bin/diff-link
rm /usr/share/doc/apt/copyright
find /usr/share/doc -name 'changelog*' -delete
