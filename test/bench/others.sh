#!/bin/sh
# What certfetcher does, by openssl, curl and keytool: a key and a request, the certificate from the CertService at URL
# with the identity in the directory IDENTITY, and keystore and truststore as OUTPUT, in the directory OUT. It verifies
# nothing of the answer, and publishes nothing in one step.
set -eu
umask 077
mkdir "$OUT"
cd "$OUT"

case $KEY in
ECDSA-P256) set -- ec -pkeyopt ec_paramgen_curve:prime256v1 ;;
RSA-2048) set -- rsa:2048 ;;
esac
openssl req -new -newkey "$@" -noenc -keyout key.pem -out csr.pem -subj '/C=SE/ST=Skane/O=Example/CN=app.example.org' \
	-addext subjectAltName=DNS:app.example.org 2>openssl.log

printf 'CSR: %s\nPK: %s\n' "$(base64 -w 0 csr.pem)" "$(base64 -w 0 key.pem)" >headers
curl --silent --show-error --fail --cert "$IDENTITY/client-certificate.pem" --key "$IDENTITY/client-key.pem" \
	--cacert "$IDENTITY/truststore.pem" --header @headers --output answer.json "$URL"

# certificates prints a list of the answer.
certificates() {
	sed 's/.*"'"$1"'":\[\([^]]*\)\].*/\1/; s/","//g; s/"//g; s/\\n/\n/g' answer.json
}
certificates certificateChain >chain.pem
certificates trustedCertificates >truststore.pem

password() {
	head -c 18 /dev/urandom | base64 >"$1"
}
case $OUTPUT in
PEM)
	cat key.pem chain.pem >keystore.pem
	;;
P12)
	password keystore.pass
	password truststore.pass
	openssl pkcs12 -export -name certificate -inkey key.pem -in chain.pem -passout file:keystore.pass -out keystore.p12
	openssl pkcs12 -export -nokeys -in truststore.pem -passout file:truststore.pass -out truststore.p12
	;;
JKS)
	password keystore.pass
	password truststore.pass
	openssl pkcs12 -export -name certificate -inkey key.pem -in chain.pem -passout file:keystore.pass -out keystore.p12
	keytool -importkeystore -noprompt -srckeystore keystore.p12 -srcstoretype PKCS12 -srcstorepass:file keystore.pass \
		-destkeystore keystore.jks -deststoretype JKS -deststorepass:file keystore.pass 2>keytool.log
	keytool -importcert -noprompt -alias trusted-1 -file truststore.pem -keystore truststore.jks -storetype JKS \
		-storepass:file truststore.pass 2>>keytool.log
	;;
esac
rm -f headers answer.json csr.pem
