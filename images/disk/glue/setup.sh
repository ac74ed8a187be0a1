#!/bin/sh
# Before any package: the links of a merged /usr, which the package usr-is-merged
# expects to find. The other way there, usrmerge, needs Perl.
set -eu
for dir in bin sbin lib lib32 lib64 libx32; do
	mkdir -p "$1/usr/$dir"
	ln -s "usr/$dir" "$1/$dir"
done
