package keystore

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// KeyError says that an entry's private key cannot be encoded.
type KeyError struct {
	Alias string
	Err   error
}

func (e *KeyError) Error() string { return fmt.Sprintf("encoding private key %q: %v", e.Alias, e.Err) }
func (e *KeyError) Unwrap() error { return e.Err }

// checkEntries refuses what would make a store that no JVM can use, or not all of it.
func checkEntries(entries []Entry, password string) error {
	if err := checkPassword(password); err != nil {
		return err
	}
	if len(entries) == 0 {
		return errors.New("store has no entries, want at least one")
	}
	aliases := map[string]bool{}
	for _, e := range entries {
		// A JVM compares aliases without regard to case: of two it would see one.
		alias := strings.ToLower(e.Alias)
		switch {
		case e.Alias == "":
			return errors.New("entry has no alias")
		case aliases[alias]:
			return fmt.Errorf("alias %q stands for two entries; case makes no difference", e.Alias)
		}
		aliases[alias] = true
		if err := checkEntry(e); err != nil {
			return err
		}
	}
	return nil
}

func checkEntry(e Entry) error {
	if e.Key == nil {
		if len(e.Chain) != 1 {
			return fmt.Errorf("trusted entry %q has %d certificates, want 1", e.Alias, len(e.Chain))
		}
		return nil
	}
	if len(e.Chain) == 0 {
		return fmt.Errorf("key entry %q has no certificate", e.Alias)
	}
	if !holds(e.Chain[0], e.Key.Public()) {
		return fmt.Errorf("key entry %q has a certificate for another key", e.Alias)
	}
	if _, err := x509.MarshalPKCS8PrivateKey(e.Key); err != nil {
		return &KeyError{e.Alias, err}
	}
	return nil
}

// checkPassword allows printable ASCII. JDKs up to 17 at least refuse any other character for PBES2
// ("Password is not ASCII").
func checkPassword(password string) error {
	if password == "" {
		return errors.New("store has no password")
	}
	for i := range len(password) {
		if password[i] < ' ' || password[i] > '~' {
			return errors.New("password has a character other than printable ASCII, which Java does not read")
		}
	}
	return nil
}
