# One target for each program; without --target the fetcher:
#   docker build --target certservice --build-arg VERSION=1.2.3 -t certservice .
# What stands above "FROM scratch AS image" builds from source. deploy/images/build.sh leaves that out
# and packs programs that it has built on the host, so both ways share everything below.
ARG GO_VERSION=1.26.8
FROM --platform=$BUILDPLATFORM golang:$GO_VERSION AS build
ARG TARGETARCH
ARG VERSION=devel
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN GOARCH=$TARGETARCH VERSION=$VERSION deploy/images/programs.sh /out

# No shell, no libc, no CA bundle: the programs trust what they are configured to trust and nothing else.
FROM scratch AS image
ARG VERSION=devel
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.created=$CREATED \
      org.opencontainers.image.source=https://github.com/certfetcher/certfetcher \
      org.opencontainers.image.licenses=Apache-2.0
USER 65532:65532

FROM image AS certservice
LABEL org.opencontainers.image.title=certservice \
      org.opencontainers.image.description="Has certificate requests signed by CMPv2 servers, over REST and mutual TLS"
COPY --from=build /out/certservice /certservice
EXPOSE 8443
ENTRYPOINT ["/certservice"]

FROM image AS devca
LABEL org.opencontainers.image.title=devca \
      org.opencontainers.image.description="DEVELOPMENT ONLY: a certification authority that answers CMP from memory"
COPY --from=build /out/devca /devca
COPY --from=build --chown=65532:65532 /out/empty/ /var/lib/devca/
ENTRYPOINT ["/devca"]

# What the Compose set needs besides: the identities of mutual TLS, and an application.
FROM image AS certfetcher-compose
LABEL org.opencontainers.image.title=certfetcher-compose
LABEL org.opencontainers.image.description="DEVELOPMENT ONLY: identities and an application for the Compose set"
COPY --from=build /out/identities /identities
COPY --from=build /out/app /app
COPY --from=build --chown=65532:65532 /out/empty/ /var/lib/identities/certservice/
COPY --from=build --chown=65532:65532 /out/empty/ /var/lib/identities/client/
COPY --from=build --chown=65532:65532 /out/empty/ /var/lib/identities/ca/
COPY --from=build --chown=65532:65532 /out/empty/ /var/lib/identities/root/
ENTRYPOINT ["/app"]

# The bills of materials: docker build --target sbom --output dist .
FROM scratch AS sbom
COPY --from=build /out/*.cdx.json /

# The empty directory gives a new volume that is mounted on it the program's user as its owner.
FROM image AS certfetcher
LABEL org.opencontainers.image.title=certfetcher
LABEL org.opencontainers.image.description="Init container and sidecar that fetches certificates for an application"
# It has no work for more processors. On a node with 64, what Go sets up for each takes a millisecond and 1.4 MiB.
ENV GOMAXPROCS=2
COPY --from=build /out/certfetcher /certfetcher
COPY --from=build --chown=65532:65532 /out/empty/ /var/run/certs/
ENTRYPOINT ["/certfetcher"]
