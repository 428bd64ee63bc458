# make demo and make test need Go and make, nothing else.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS = -s -w -X github.com/certfetcher/certfetcher/internal/program.version=$(VERSION)
PROGRAMS = certfetcher certservice devca
STATICCHECK = go tool -modfile=.ci/tools/go.mod staticcheck

.PHONY: build demo test race chaos fuzz lint audit bench image containers manifests docs clean

build: $(PROGRAMS:%=bin/%)

bin/%: FORCE
	CGO_ENABLED=0 go build -trimpath $(TAGS) -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

# Both speak HTTP/1.1 only; without net/http's HTTP/2 they are half a megabyte smaller.
bin/certfetcher bin/certservice: TAGS = -tags nethttpomithttp2

demo: build
	go run ./test/demo

# The packages that take longest begin first, and three at a time: they wait more than they work. make lint has go vet, and
# binaries without tables for debuggers are linked sooner.
LONG = ./test/sidecar ./test/e2e ./test/interop ./test/applications

test:
	go test -count=1 -p 3 -vet=off -ldflags='-s -w' $(LONG) ./...

race:
	go test -count=1 -race $(LONG) ./...

# Faults, attacks and load, the whole of it: half an hour. It writes the figures of docs/reliability.md; CHAOS=short has
# fewer repetitions and writes nothing. Those through broken networks are a module of their own, so that Toxiproxy is not
# certfetcher's dependency.
CHAOS ?= full
CHAOS_ENVIRONMENT = CHAOS=$(CHAOS) FIGURES=$(if $(filter full,$(CHAOS)),write)
chaos: build
	env $(CHAOS_ENVIRONMENT) go test -count=1 -p 1 -timeout 60m ./test/chaos/...
	cd test/chaos/network && go vet ./... && env $(CHAOS_ENVIRONMENT) go test -count=1 -timeout 60m ./...

lint:
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go vet ./...
	$(STATICCHECK) ./...

# What the programs are made of: published modules, unsafe patterns, licences, known weaknesses.
audit:
	.ci/audit

# Fuzzes every parser; FUZZ_SECONDS is shared by all of them.
FUZZ_SECONDS ?= 3600
fuzz:
	.ci/fuzz $(FUZZ_SECONDS)

# Benchmarks of the parts, then whole runs of the built program: wall time and peak memory.
bench: build
	go test -run '^$$' -bench . -benchtime 1s ./keygen ./output ./internal/pkcs12
	go run ./test/bench

# Images FROM scratch out of programs built here, with whichever of podman, buildah and docker works; each
# with its bill of materials beside it in dist/images. deploy/images/build.sh says what GOARCH,
# SOURCE_DATE_EPOCH, IMAGE_PREFIX and BUILDER do.
image:
	VERSION=$(VERSION) deploy/images/build.sh

# Builds the images and runs them for real: wants podman, podman-compose, openssl, and the right to run containers.
containers:
	go vet -tags containers ./test/containers
	go test -tags containers -count=1 ./test/containers

# Holds manifests, charts, alerts and dashboards against the types and the programs; a module of its own, so that
# Kubernetes' libraries are not certfetcher's dependencies.
manifests:
	cd test/manifests && go vet ./... && go test -count=1 ./...

# Rewrites what the documents generate from the code.
docs:
	go test ./test/docs ./test/interop -update

clean:
	rm -rf bin dist

FORCE:
