#!/bin/sh
# Builds the programs of all images, for Linux on GOARCH, and their bills of materials into a directory.
# The same sources, VERSION and Go give the same bytes: no paths, no VCS state, no C.
#   GOARCH=arm64 VERSION=1.2.3 deploy/images/programs.sh dist/out
set -eu
out=$1
cd "$(dirname "$0")/../.."
mkdir -p "$out/empty"

for package in cmd/certfetcher cmd/certservice cmd/devca deploy/compose/identities deploy/compose/app; do
	program=$(basename "$package")
	CGO_ENABLED=0 GOOS=linux go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION:-devel}" \
		-o "$out/$program" "./$package"
	# The tool runs here, whatever machine the program is for.
	GOOS='' GOARCH='' go run ./deploy/images/sbom -version "${VERSION:-devel}" "$out/$program" >"$out/$program.cdx.json"
done
