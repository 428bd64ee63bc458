#!/bin/sh
# Builds Debian packages of certfetcher and certservice into a directory:
#   GOARCH=arm64 VERSION=1.2.3 deploy/packages/build.sh dist/packages
# PROGRAMS is a directory with the programs, which are built without it. SOURCE_DATE_EPOCH, by default the commit's, is
# the time of all files: the same sources give the same packages.
set -eu
umask 022
target=$1
cd "$(dirname "$0")/../.."
mkdir -p "$target"
target=$(cd "$target" && pwd)
GOARCH=${GOARCH:-$(go env GOARCH)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
VERSION=${VERSION:-$(git describe --tags --always)}
VERSION=${VERSION#v}
case $VERSION in [0-9]*) ;; *) VERSION=0~$VERSION ;; esac # a version begins with a number
OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT
export GOARCH VERSION OUT SOURCE_DATE_EPOCH

# page PROGRAM writes a manual page: what the program says about itself.
page() {
	printf '.TH %s 1 "" "%s %s"\n.SH NAME\n%s \\- %s\n' "$1" "$1" "$VERSION" "$1" "$2"
	printf '.SH DESCRIPTION\n.nf\n'
	"bin/$1" help | sed 's/\\/\\e/g; s/^[.'"'"']/\\\&&/; s/-/\\-/g'
	"bin/$1" help "$3" | sed 's/\\/\\e/g; s/^[.'"'"']/\\\&&/; s/-/\\-/g'
}

make --silent bin/certfetcher bin/certservice VERSION="$VERSION" GOARCH= >&2 # these are asked for their help
if [ -n "${PROGRAMS:-}" ]; then
	cp "$PROGRAMS/certfetcher" "$PROGRAMS/certservice" "$OUT/"
else
	GOOS=linux make --silent BIN="$OUT" VERSION="$VERSION" "$OUT/certfetcher" "$OUT/certservice" >&2
fi
page certfetcher 'fetches certificates for applications' run | gzip -9n >"$OUT/certfetcher.1.gz"
page certservice 'certificates by CMPv2, over REST' serve | gzip -9n >"$OUT/certservice.1.gz"
gzip -9nc CHANGELOG.md >"$OUT/changelog.gz"
for package in certfetcher certservice; do
	GOOS='' GOARCH='' go tool -modfile=.ci/tools/go.mod nfpm package --packager deb --target "$target" \
		--config "deploy/packages/$package.yaml"
done
