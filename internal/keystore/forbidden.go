package keystore

import (
	"fmt"
	"strings"
)

// forbidden, deferred, makes an error of the panic with which Go's FIPS 140-only mode refuses what older stores
// are made with, such as SHA-1. Other panics go on.
func forbidden(err *error) {
	v := recover()
	if v == nil {
		return
	}
	text := fmt.Sprint(v)
	if !strings.Contains(text, "FIPS 140-only mode") {
		panic(v)
	}
	*err = fmt.Errorf("this store cannot be used here: %s: want PEM, or PKCS#12 with AES-256 and HmacSHA256", text)
}
