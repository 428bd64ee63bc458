package cmp

import "errors"

// CheckProtectionAlg says whether the message's protectionAlg, with its parameters, can be verified here at all. A
// server answers badAlg to one that cannot, and badMessageCheck when the protection is wrong (RFC 9483, 3.5).
func (m *PKIMessage) CheckProtectionAlg() error {
	switch alg := m.Header.ProtectionAlg; {
	case alg == nil:
		return errors.New("message is not protected")
	case m.MACProtected():
		_, err := parseMAC(*alg)
		return err
	default:
		_, err := x509Algorithm(*alg)
		return err
	}
}
