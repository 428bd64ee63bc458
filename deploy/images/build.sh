#!/bin/sh
# Builds the programs with the Go of this machine and packs them into images FROM scratch, so that no
# base image is pulled. Takes whichever of podman, buildah and docker is there. The images to make are
# the arguments; without, all of them. Beside each: dist/images/linux-ARCH/PROGRAM.cdx.json.
#
#   GOARCH             the machine the images are for; this one's without
#   VERSION            tag and label; from git without
#   SOURCE_DATE_EPOCH  every time in the images, in seconds; that of the last commit without
#   IMAGE_PREFIX       such as registry.example.org/certfetcher/
#   BUILDER            podman, buildah or docker
#
# The same sources, VERSION, SOURCE_DATE_EPOCH and Go give the same image ID with podman and buildah. Docker
# writes the time of the build into layers, unless buildx exports with rewrite-timestamp=true.
set -eu
cd "$(dirname "$0")/../.."

GOARCH=${GOARCH:-$(go env GOARCH)}
VERSION=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo devel)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export GOARCH VERSION SOURCE_DATE_EPOCH
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
format=%Y-%m-%dT%H:%M:%SZ
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +$format 2>/dev/null || date -u -r "$SOURCE_DATE_EPOCH" +$format)
context=dist/images/linux-$GOARCH
[ $# -gt 0 ] || set -- certfetcher certservice devca certfetcher-compose

# builder prints the first program that can build here: a docker command without its daemon cannot.
builder() {
	for candidate in ${BUILDER:-podman buildah docker}; do
		if command -v "$candidate" >/dev/null && "$candidate" version >/dev/null 2>&1; then
			echo "$candidate"
			return
		fi
	done
	echo "no working ${BUILDER:-podman, buildah or docker} found: one of them has to pack the images" >&2
	exit 1
}
builder=$(builder)

programs=
for image; do
	[ "$image" != certfetcher-compose ] || image='identities app'
	programs="$programs $image"
done
rm -rf "$context"
# shellcheck disable=SC2086 # several words are meant
deploy/images/programs.sh "$PWD/$context/out" $programs
mv "$context"/out/*.cdx.json "$context/"
# Everything below the stage that builds from source, which copies from the context instead.
sed -n '/^FROM scratch AS image/,$p' Dockerfile |
	sed '/^FROM scratch AS sbom/,/^$/d; s/--from=build //' >"$context/Dockerfile"
find "$context/out" -exec touch -d "$created" {} +

for image; do
	tag=${IMAGE_PREFIX:-}$image
	set -- --platform "linux/$GOARCH" --target "$image" -f "$context/Dockerfile" \
		--build-arg "VERSION=$VERSION" --build-arg "REVISION=$revision" --build-arg "CREATED=$created" \
		-t "$tag:$VERSION-$GOARCH"
	# Another machine's image must not become the one that runs here.
	[ "$GOARCH" != "$(go env GOHOSTARCH)" ] || set -- "$@" -t "$tag:$VERSION" -t "$tag:latest"
	case $builder in
	docker) set -- --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" "$@" ;;
	*) set -- --timestamp "$SOURCE_DATE_EPOCH" --layers=false --no-cache "$@" ;;
	esac
	printf '%s:%s-%s ' "$tag" "$VERSION" "$GOARCH"
	"$builder" build -q "$@" "$context"
done
