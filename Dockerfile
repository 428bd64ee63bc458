# One image for each program: docker build --target certfetcher -t certfetcher .
FROM golang:1.26 AS build
ARG VERSION=devel
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN make build VERSION="${VERSION}"

# No shell, no libc, nothing but the program; it needs no CA bundle, because it trusts TRUSTSTORE_PATH alone.
FROM scratch AS certfetcher
COPY --from=build /src/bin/certfetcher /certfetcher
USER 65532:65532
ENTRYPOINT ["/certfetcher"]
