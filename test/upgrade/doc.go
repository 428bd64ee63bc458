// Package upgrade runs releases beside one another: volumes of one are read by another, and clients of one ask a
// service of another, forwards and back. The earlier releases are built from this repository's history.
//
//	go test -tags upgrade ./test/upgrade
//
// What a new release has to do is in testdata: a row for it in each script, as the one before.
package upgrade
