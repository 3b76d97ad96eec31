# Prints the tree below the directory $1 so that two of them can be compared: what each object is, and
# a sum over contents and extended attributes.
set -eu
cd "$1"
find . -printf '%p %y %m %U:%G %n %s %T@ %l\n' | sed '/ d /s/^\(\S* d \S* \S*\) \S* \S*/\1/' | LC_ALL=C sort
tar --create --sort=name --numeric-owner --xattrs --xattrs-include='*' --format=posix \
    --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' . | sha256sum
