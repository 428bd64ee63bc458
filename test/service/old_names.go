package service

import "github.com/certfetcher/certfetcher/test/ca"

// Names that are package ca's now.
const (
	Password = ca.Password
	CAName   = ca.CAName
)

var (
	WriteIdentity   = ca.WriteIdentity
	CertificatesPEM = ca.CertificatesPEM
)
