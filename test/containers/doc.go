// Package containers builds the images and runs them for real, with podman and podman-compose: under
// the flags of the restricted Pod Security Standard, as the Compose set, and as the pod of the
// Kubernetes example. It is behind a build tag, because it wants those programs, the right to run
// containers, and two minutes:
//
//	go test -tags containers ./test/containers
//
// No image is pulled. Storage, networks and configuration are podman's in a directory of the test's own,
// and gone afterwards.
package containers
