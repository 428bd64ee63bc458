#!/bin/sh
# Builds programs for GOOS, or Linux, on GOARCH, and their bills of materials, into a directory: those of all
# images, or the ones named. The Makefile says how they are built.
#   GOARCH=arm64 VERSION=1.2.3 deploy/images/programs.sh dist/out certfetcher
set -eu
umask 022 # the user of the images is not the owner
out=$1
shift
[ $# -gt 0 ] || set -- certfetcher certservice devca identities app
cd "$(dirname "$0")/../.."
mkdir -p "$out/empty"

for program; do
	GOOS=${GOOS:-linux} make --silent BIN="$out" VERSION="${VERSION:-devel}" "$out/$program"
	# The tool runs here, whatever machine the program is for.
	GOOS='' GOARCH='' go tool -modfile=.ci/tools/go.mod cyclonedx-gomod bin -json -noserial -notimestamp -std \
		-version "${VERSION:-devel}" "$out/$program" >"$out/$program.cdx.json"
done
