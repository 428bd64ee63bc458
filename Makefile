# make demo and make test need Go and make, nothing else. make help lists the targets: it prints their lines with ##.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS = -s -w -X github.com/certfetcher/certfetcher/internal/program.version=$(VERSION)
PROGRAMS = certfetcher certservice devca
BIN = bin
MODULE = github.com/certfetcher/certfetcher
TOOL = go tool -modfile=.ci/tools/go.mod

.DEFAULT_GOAL = build
.PHONY: help build demo test race chaos fuzz cover lint audit bench image release containers manifests upgrades
.PHONY: cluster packages hosts recording docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

# How programs are built is said here alone; deploy/images/programs.sh has it done into other directories, and for
# other machines. The same sources, VERSION and Go give the same files: no paths, no VCS state, no C.
build: $(PROGRAMS:%=$(BIN)/%) ## the programs, into bin
$(BIN)/%: FORCE
	CGO_ENABLED=0 go build -trimpath -buildvcs=false $(TAGS) $(GCFLAGS) -ldflags '$(LDFLAGS)' -o $@ $(SOURCE)
SOURCE = ./cmd/$*
$(BIN)/identities $(BIN)/app: SOURCE = ./deploy/compose/$*

# Both speak HTTP/1.1 only; without net/http's HTTP/2 they are half a megabyte smaller.
$(BIN)/certfetcher $(BIN)/certservice: TAGS = -tags nethttpomithttp2

# Every node of a cluster pulls certfetcher. Without inlining it is a tenth of a megabyte smaller, and not slower:
# what takes time is the standard library's, and the stores' loops, which stay inlined. Of the standard library,
# net/http and crypto/tls make a few requests only.
$(BIN)/certfetcher: GCFLAGS = -gcflags=$(MODULE)/...=-l -gcflags=$(MODULE)/internal/pkcs12= \
	-gcflags=$(MODULE)/internal/keystore= $(addsuffix =-l,$(addprefix -gcflags=,net/http crypto/tls $(LIBRARIES)))
LIBRARIES = github.com/cenkalti/backoff/v4 github.com/fsnotify/fsnotify \
	github.com/kelseyhightower/envconfig

demo: build ## the main job for real, on loopback
	go run ./test/demo

# The packages that take longest begin first, and more at a time than there are processors: they wait more than
# they work. make lint has go vet, and binaries without tables for debuggers are linked sooner.
LONG = ./cmd/certservice ./test/sidecar ./test/e2e ./test/interop ./test/applications

test: ## everything that can be tested on this machine, in about a minute
	go test -count=1 -p 4 -parallel 8 -vet=off -ldflags='-s -w' $(LONG) ./...

race: ## the same with the race detector
	go test -count=1 -race $(LONG) ./...

# Faults, attacks and load, the whole of it: half an hour. It writes the figures of docs/reliability.md;
# CHAOS=short has fewer repetitions and writes nothing. Those through broken networks are a module of their
# own, so that Toxiproxy is not certfetcher's dependency.
CHAOS ?= full
CHAOS_ENVIRONMENT = CHAOS=$(CHAOS) FIGURES=$(if $(filter full,$(CHAOS)),write)
chaos: build ## faults, attacks and load; half an hour
	env $(CHAOS_ENVIRONMENT) go test -count=1 -p 1 -timeout 60m ./test/chaos/...
	cd test/chaos/network && go vet ./... && env $(CHAOS_ENVIRONMENT) go test -count=1 -timeout 60m ./...

# Linters: formatting, go vet, staticcheck, at most 120 columns (but for rows of tables), spelling.
TEXTS = '*.go' '*.md' '*.sh' '*.java' .ci/run .ci/audit .ci/fuzz Makefile Dockerfile
lint: ## formatting, go vet, staticcheck, line length, spelling
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go vet ./...
	$(TOOL) staticcheck ./...
	! git ls-files $(TEXTS) | $(TOOL) lll --files -l 120 -w 4 --exclude '^\|' | grep .
	git ls-files $(TEXTS) | xargs $(TOOL) misspell -error

# What the programs are made of: published modules, unsafe patterns, licences, known weaknesses.
audit: ## modules, unsafe patterns, licences, known weaknesses
	.ci/audit

# Fuzzes every parser; FUZZ_SECONDS is shared by all of them.
FUZZ_SECONDS ?= 3600
fuzz: ## fuzz every parser, for FUZZ_SECONDS in all
	.ci/fuzz $(FUZZ_SECONDS)

# Which statements the tests of all packages reach, as a page.
cover: ## coverage of all tests, as dist/cover.html
	mkdir -p dist
	go test -coverpkg=./client/...,./cmd/...,./internal/...,./keygen/...,./output/... -coverprofile=dist/cover.out ./...
	go tool cover -html=dist/cover.out -o dist/cover.html
	go tool cover -func=dist/cover.out | tail -1

# Whole runs of the built programs, and how they grow: they write docs/performance.md. The storms are simulated, and
# some run for real: they write docs/storms.md. BENCH=short takes a minute, writes nothing, and holds only figures of
# one run against each other.
BENCH ?= full
bench: build ## benchmarks of whole runs, of growth and of start storms, a quarter of an hour
	BENCH=$(BENCH) BENCH_OLD=$(BENCH_OLD) go run ./test/bench
ifeq ($(BENCH),full)
	go test -run '^$$' -bench . -benchtime 1s ./keygen ./output ./internal/pkcs12
	go run ./test/storm/write
	go run ./test/storm/processes
endif

# Images FROM scratch out of programs built here, with whichever of podman, buildah and docker works; each
# with its bill of materials beside it in dist/images. deploy/images/build.sh says what GOARCH,
# SOURCE_DATE_EPOCH, IMAGE_PREFIX and BUILDER do.
image: ## container images, and their bills of materials
	VERSION=$(VERSION) deploy/images/build.sh

# A release, in dist/release: programs, images, charts, bills of materials, provenance, checksums, signatures. It is a
# module of its own; deploy/release/main.go says what VERSION, RELEASE_KEY, RELEASE_KEY_PASSWORD_FILE, IMAGE_PREFIX and
# RELEASE_DIRTY do.
release: ## a release, in dist/release; needs no daemon
	$(if $(filter file,$(origin VERSION)),,VERSION=$(VERSION)) go -C deploy/release run . build

# Builds the images and runs them for real: wants podman, podman-compose, openssl, and the right to run containers.
containers: ## run the images; wants podman
	go vet -tags containers ./test/containers
	go test -tags containers -count=1 ./test/containers

# Holds manifests, charts, alerts and dashboards against the types and the programs; a module of its own, so that
# Kubernetes' libraries are not certfetcher's dependencies.
manifests: ## check manifests, charts, alerts and dashboards
	cd test/manifests && go vet ./... && go test -count=1 ./...

# Earlier releases beside this one: volumes, clients and services of each, forwards and back. They are built from the
# history of this repository.
upgrades: ## run earlier releases beside this one
	go vet -tags upgrade ./test/upgrade
	go test -tags upgrade -count=1 ./test/upgrade

# Debian packages, in dist/packages; deploy/packages/build.sh says what VERSION and GOARCH do.
packages: ## Debian packages, in dist/packages
	VERSION=$(VERSION) deploy/packages/build.sh dist/packages

# Installs them on a Debian that systemd boots, in a container with no network.
hosts: ## install the packages under systemd; wants root, mmdebstrap and systemd-nspawn
	go vet -tags hosts ./test/hosts
	go test -tags hosts -count=1 ./test/hosts

# Runs the programs on a terminal, and draws what it shows.
recording: build ## the pictures of a terminal in the documents
	go run ./test/demo/recording

# A real Kubernetes, built from source and gone afterwards. test/cluster/doc.go says what it wants of the machine. The
# first time takes a quarter of an hour of a processor more.
cluster: ## everything in a real Kubernetes; wants root, containerd and etcd
	cd test/cluster && go vet ./... && go test -count=1 -timeout 60m

# Rewrites what the documents generate from the code.
docs: ## write the generated parts of the documents
	go test ./test/docs ./test/interop -update
	cd test/manifests && go test -run 'schemas|valuesReferences|monitoringFiles' . -update
	go test ./test/pages -run Description -update

clean: ## remove what make made
	rm -rf bin dist

FORCE:
