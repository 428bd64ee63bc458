// Package cmp speaks the Certificate Management Protocol version 2: RFC 9810 (which replaces
// RFC 4210 and 9480) with CRMF requests after RFC 4211, algorithms after RFC 9481, in the manner of
// the lightweight profile RFC 9483, carried over HTTP after RFC 9811.
//
// It has two halves. The wire half serves clients and servers alike: [ParsePKIMessage] and
// [PKIMessage.Marshal], [MACKeys], [ProtectSignature], [VerifySignature], the proof of
// possession in a [CertReqMsg], and [CertHash]. Decoding is strict DER over bounded input, and what
// parses marshals back to the same bytes. The client half is [Client]: ir, cr, kur, p10cr, rr and genm,
// with confirmation and polling, and with every check that an answer must pass before anything
// of it is believed.
//
// It does not speak cross certification, key recovery, central key generation, encrypted
// certificates, announcements, nested messages or challenge-response proofs of possession. Bodies of
// those kinds parse as [RawContent] and are never acted on. It polls for whatever a CA delays (RFC 9483, 4.4): for a
// certificate, where the status is waiting in ip, cp or kup, and for any answer, where an error message has that status.
package cmp
