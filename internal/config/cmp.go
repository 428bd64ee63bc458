package config

import (
	"fmt"
	"strings"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
)

// cmp reads how certificates are requested by CMP; nil when they are not.
func (l *loader) cmp() *enroll.CMP {
	if l.Choice("PROTOCOL", "certservice", "cmp") != "cmp" {
		for _, v := range Variables {
			if strings.HasPrefix(v.Name, "CMP_") && l.Value(v.Name) != v.Default {
				l.Warn(v.Name, "is set, and has no effect without PROTOCOL=cmp")
			}
		}
		return nil
	}
	c := &enroll.CMP{
		URL: l.Value("CMP_URL"), Recipient: l.Value("CMP_RECIPIENT"), Reference: l.Value("CMP_REFERENCE"),
		Secret: l.Value("CMP_SECRET"), SecretFile: l.SecretFile("CMP_SECRET"), Protection: l.protection(),
		Anchors: mtls.Files{TruststorePath: l.Value("CMP_TRUST_ANCHORS"),
			TruststorePassword:     l.Value("CMP_TRUST_ANCHORS_PASSWORD"),
			TruststorePasswordFile: l.SecretFile("CMP_TRUST_ANCHORS_PASSWORD")},
		PollFor: l.Duration("CMP_POLL_FOR", 0), Profile: l.Value("CMP_CERT_PROFILE"),
		AllowModified: l.Bool("CMP_ALLOW_MODIFIED"),
	}
	if l.Value("CMP_IMPLICIT_CONFIRM") != "" {
		implicit := l.Bool("CMP_IMPLICIT_CONFIRM")
		c.ImplicitConfirm = &implicit
	}
	for _, name := range []string{"CMP_REFERENCE", "CMP_SECRET", "CMP_CERT_PROFILE"} {
		if n := len(l.Value(name)); n > 256 {
			l.Reject(name, fmt.Sprintf("%d bytes", n))
		}
	}
	if c.URL != "" {
		l.checkURL("CMP_URL", "https", "http")
	}
	if l.isHTTPS("CMP_URL") && l.Value("TRUSTSTORE_PATH") == "" {
		l.Add("TRUSTSTORE_PATH", "is not set, and CMP_URL begins with https://, want "+l.Rule("TRUSTSTORE_PATH"))
	}
	if l.Value("TOKEN_PATH") != "" && c.URL != "" && !l.isHTTPS("CMP_URL") {
		l.Add("TOKEN_PATH", "is set, and CMP_URL does not begin with https://: a token must not travel in the clear")
	}
	if c.Recipient != "" {
		if _, err := cmp.ParseDN(c.Recipient); err != nil {
			l.Reject("CMP_RECIPIENT", err.Error())
		}
	}
	l.checkAnchors(c)
	return c
}

// isHTTPS tells a URL that leads through TLS.
func (l *loader) isHTTPS(name string) bool { return strings.HasPrefix(l.Value(name), "https:") }

// protection is how requests are protected, and checks that there is what that needs.
func (l *loader) protection() cmp.Protection {
	chosen := cmp.Protection(strings.ToLower(l.Value("CMP_PROTECTION")))
	secret, keystore := l.Value("CMP_SECRET") != "", l.Value("KEYSTORE_PATH") != ""
	token := l.Value("TOKEN_PATH") != ""
	switch chosen {
	case "":
		switch {
		case secret:
			return cmp.ProtectionPBMSHA256
		case token && !keystore:
			return cmp.ProtectionNone
		case !keystore:
			l.Add("CMP_SECRET", "is not set, and neither are KEYSTORE_PATH and TOKEN_PATH: want the secret that is "+
				"shared with the CA, an identity that signs requests, or a token for a CertService")
		}
		return cmp.ProtectionSignature
	case cmp.ProtectionNone:
		if !token && !keystore || !l.isHTTPS("CMP_URL") {
			l.Reject("CMP_PROTECTION", "nothing else would tell who asks")
		}
	case cmp.ProtectionSignature:
		if !keystore {
			l.Add("KEYSTORE_PATH", "is not set, and CMP_PROTECTION is signature, want "+l.Rule("KEYSTORE_PATH"))
		}
	case cmp.ProtectionPBMSHA256, cmp.ProtectionPBMSHA1, cmp.ProtectionPBMAC1:
		if !secret {
			l.Add("CMP_SECRET", fmt.Sprintf("is not set, and CMP_PROTECTION is %s, want the secret that is shared "+
				"with the CA", chosen))
		}
	default:
		l.Reject("CMP_PROTECTION", "")
	}
	return chosen
}

// checkAnchors checks that something says whose answers and certificates to trust, and names the CA.
func (l *loader) checkAnchors(c *enroll.CMP) {
	switch {
	case c.Anchors.TruststorePath != "":
	case c.Protection == cmp.ProtectionSignature || c.Protection == cmp.ProtectionNone:
		l.Add("CMP_TRUST_ANCHORS", "is not set, and no secret vouches for an answer, want "+
			l.Rule("CMP_TRUST_ANCHORS"))
	case c.Recipient == "":
		l.Add("CMP_RECIPIENT", "is not set, and neither is CMP_TRUST_ANCHORS, which would give it, want "+
			l.Rule("CMP_RECIPIENT"))
	}
}
