package output

import (
	"crypto/rand"
	"fmt"
	"slices"
)

const (
	passwordAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_$#"
	passwordLength   = 24
	// Java's keytool refuses to touch a store with a shorter password.
	passwordMinimum = 6
	passwordMaximum = 1024
)

// passwords open the stores; a store and the key in it have the same.
type passwords struct{ keystore, truststore string }

// newPassword draws 24 characters (144 bits, less a little) from the alphabet, each equally likely.
func newPassword() string {
	// Bytes from the largest multiple of the alphabet's length on are thrown away: taking their
	// remainder would prefer the first characters.
	const limit = 256 / len(passwordAlphabet) * len(passwordAlphabet)
	password := make([]byte, 0, passwordLength)
	random := make([]byte, passwordLength)
	for len(password) < passwordLength {
		rand.Read(random) // never fails
		for _, b := range random {
			if int(b) < limit && len(password) < passwordLength {
				password = append(password, passwordAlphabet[int(b)%len(passwordAlphabet)])
			}
		}
	}
	return string(password)
}

// checkPassword says why the content of a password file cannot be a password. The content itself is
// never part of the error.
func checkPassword(data []byte) error {
	if n := len(data); n < passwordMinimum || n > passwordMaximum {
		return fmt.Errorf("has %d bytes, want a password of %d to %d", n, passwordMinimum, passwordMaximum)
	}
	for _, b := range data {
		// Java reads no other characters in the same way in every store.
		if b < ' ' || b > '~' {
			return fmt.Errorf("has the byte %#02x, want printable ASCII on one line with no line break at its end", b)
		}
	}
	return nil
}

// choosePasswords decides on the passwords for as long as the volume is open: those of the
// configuration, else those on the volume, else new ones. They must not change from one
// publication to the next, because readers open a store and its password file one after the other.
func (v *Volume) choosePasswords(s snapshot) {
	needed := slices.ContainsFunc(filesOf(v.cfg.Types), func(f File) bool { return f.holds == password })
	if !needed || v.passwords != (passwords{}) {
		return
	}
	v.passwords = passwords{
		keystore:   v.choosePassword(v.cfg.KeystorePassword, keystorePass, s),
		truststore: v.choosePassword(v.cfg.TruststorePassword, truststorePass, s),
	}
}

func (v *Volume) choosePassword(given, name string, s snapshot) string {
	if given != "" {
		return given
	}
	if found, ok := s.files[name]; ok {
		err := found.err
		if err == nil {
			err = checkPassword(found.data)
		}
		if err == nil {
			return string(found.data)
		}
		v.cfg.Log.Warn("the password file is unusable, making a new password", "path", v.path(name), "error", err)
	}
	return newPassword()
}
