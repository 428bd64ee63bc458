#!/bin/sh
# Builds programs for Linux on GOARCH, and their bills of materials, into a directory: those of all
# images, or the ones named.
# The same sources, VERSION and Go give the same files: no paths, no VCS state, no C.
#   GOARCH=arm64 VERSION=1.2.3 deploy/images/programs.sh dist/out certfetcher
set -eu
umask 022 # the user of the images is not the owner
out=$1
shift
[ $# -gt 0 ] || set -- certfetcher certservice devca identities app
cd "$(dirname "$0")/../.."
mkdir -p "$out/empty"
module=$(go list -m)

for program; do
	tags='' inline=''
	case $program in # as in the Makefile
	certfetcher) package=./cmd/$program tags=nethttpomithttp2 inline=-l ;;
	certservice) package=./cmd/$program tags=nethttpomithttp2 ;;
	identities | app) package=./deploy/compose/$program ;;
	*) package=./cmd/$program ;;
	esac
	CGO_ENABLED=0 GOOS=linux go build -trimpath -buildvcs=false -tags "$tags" -o "$out/$program" \
		-gcflags="$module/...=$inline" -gcflags="$module/internal/pkcs12=" -gcflags="$module/internal/keystore=" \
		-ldflags "-s -w -X $module/internal/program.version=${VERSION:-devel}" "$package"
	# The tool runs here, whatever machine the program is for.
	GOOS='' GOARCH='' go tool -modfile=.ci/tools/go.mod cyclonedx-gomod bin -json -noserial -notimestamp -std \
		-version "${VERSION:-devel}" "$out/$program" >"$out/$program.cdx.json"
done
