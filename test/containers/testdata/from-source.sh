#!/bin/sh
# Builds every target of the Dockerfile from source, without a network.
set -eu
mkdir -p base/tmp
for link in bin lib lib64; do
	[ ! -L "/$link" ] || cp -P "/$link" base/
done
cat >base/Dockerfile <<'DOCKERFILE'
FROM scratch
COPY . /
ENV PATH=/host/go/bin:/usr/bin HOME=/root GOROOT=/host/go GOMODCACHE=/host/modules GOCACHE=/host/cache \
    GOPROXY=off GOTOOLCHAIN=local
DOCKERFILE
podman build --quiet --tag "golang:$(sed -n 's/^ARG GO_VERSION=//p' "$ROOT/Dockerfile")" base
cd "$ROOT"
go mod download # where the build finds it
for target in '' certservice devca certfetcher-compose sbom; do
	podman build --quiet --pull=never --network=none --build-arg VERSION=from-source --volume /usr:/usr:ro \
		--volume "$(go env GOROOT):/host/go:ro" --volume "$(go env GOMODCACHE):/host/modules:ro" \
		--volume "$(go env GOCACHE):/host/cache" --tag "from-source${target:+-$target}" ${target:+--target "$target"} .
done
