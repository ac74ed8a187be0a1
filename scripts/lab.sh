#!/bin/sh
# Build an appliance of the lab stack, with its images taken from a registry that
# stands in for their own. Usage: lab.sh REGISTRY-URL ATOLL DEFINITION
set -eu
registry=$1 atoll=$2 definition=$3
set -- -f "$definition"
for host in docker.io ghcr.io quay.io; do
	set -- "$@" --mirror "$host=$registry/$host"
done
"$atoll" lock "$@"
"$atoll" build "$@"
