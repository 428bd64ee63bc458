#!/bin/sh
# Starts certservice with devca behind it on the network NETWORK, under the name that is the default of REQUEST_URL,
# with the identity in SERVER. The CA's root is then in root.pem.
set -eu
podman network create "$NETWORK"
cat >"$SERVER/cmpServers.json" <<'JSON'
{"cmpv2Servers": [{
  "caName": "RA", "url": "http://devca:8829/pkix/", "trustAnchors": "/var/lib/devca/root.pem",
  "issuerDN": "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
  "authentication": {"iak": "throwaway-secret", "rv": "RA"}
}]}
JSON
chmod a+r "$SERVER/cmpServers.json"

# start NAME OPTION... runs a container under the flags of the restricted Pod Security Standard, and waits for it.
start() {
	name=$1
	shift
	podman run --detach --name "$NETWORK-$name" --network "$NETWORK" --read-only --read-only-tmpfs=false \
		--user 65532:65532 --cap-drop=all --security-opt=no-new-privileges --env-file "$TESTDATA/$name.env" "$@" "$name"
	for _ in $(seq 100); do
		if podman exec "$NETWORK-$name" "/$name" probe; then
			return
		fi
		sleep 0.2
	done
	podman logs "$NETWORK-$name"
	exit 1
}
start devca --network-alias devca --volume "$NETWORK-roots:/var/lib/devca" --env DEVCA_IAK=throwaway-secret
start certservice --network-alias oom-cert-service --volume "$NETWORK-roots:/var/lib/devca:ro" \
	--volume "$SERVER:/etc/certservice:ro"
podman volume export "$NETWORK-roots" | tar -x root.pem
