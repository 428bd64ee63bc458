// Package hosts installs the Debian packages on a Debian that systemd boots, in a container with no network, and runs
// what docs/hosts.md says there. It wants root and the programs mmdebstrap, systemd-nspawn and nsenter:
//
//	go test -tags hosts ./test/hosts
package hosts
