#!/bin/sh
# Asks the application at PORT as a client that trusts root.pem alone, under the name that is the argument. It says the
# serial number of the certificate that it serves, which is printed.
set -eu
tls() {
	openssl s_client -connect "127.0.0.1:$PORT" -servername "$name" -CAfile root.pem -verify_hostname "$name" \
		-verify_return_error "$@" 2>&1
}
name=$1
serial=$(tls </dev/null | openssl x509 -noout -serial | sed 's/serial=0*/serial /')
printf 'GET / HTTP/1.0\r\n\r\n' | tls -quiet | grep -x "$serial"
