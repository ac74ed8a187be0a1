#!/bin/sh
# Install the Debian packages that hold the named commands or files, if any is missing.
# Usage: need.sh COMMAND-OR-FILE=PACKAGE…
set -eu
export PATH="$PATH:/usr/sbin:/sbin"
missing=
for pair; do
	what=${pair%%=*} package=${pair#*=}
	case $what in
	/*) [ -e "$what" ] ;;
	*) command -v "$what" >/dev/null ;;
	esac || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "installing Debian packages:$missing" >&2
$sudo apt-get update -qq
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >&2
