package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/peer"
	"github.com/certfetcher/certfetcher/test/service"
)

// fetch runs certfetcher once and returns the volume.
func fetch(t *testing.T, s *service.Service, environment ...string) string {
	t.Helper()
	volume := filepath.Join(t.TempDir(), "volume")
	command := exec.Command(filepath.Join(binDir, "certfetcher"))
	command.Env = append([]string{
		"REQUEST_URL=" + s.URL, "CA_NAME=" + service.CAName, "OUTPUT_PATH=" + volume,
		"COMMON_NAME=app.example.org", "ORGANIZATION=Example", "STATE=Skane", "COUNTRY=SE", "SANS=localhost,127.0.0.1",
		"KEYSTORE_PATH=" + filepath.Join(s.Dir, "client.p12"), "KEYSTORE_PASSWORD=" + service.Password,
		"TRUSTSTORE_PATH=" + filepath.Join(s.Dir, "truststore.p12"), "TRUSTSTORE_PASSWORD=" + service.Password,
	}, environment...)
	out, err := command.CombinedOutput()
	require.NoError(t, err, string(out))
	return volume
}

func start(t *testing.T) *service.Service {
	t.Helper()
	s, err := service.Start(t.TempDir(), service.Options{})
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	return s
}

func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	require.NoError(t, err, "%s %s\n%s", program, strings.Join(args, " "), out)
	return string(out)
}

// publications are the ways to publish that an application's own tools are held against.
var publications = []struct {
	name, extension string
	environment     []string
}{
	{"P12, modern profile", ".p12", []string{"OUTPUT_TYPE=P12"}},
	{"P12, legacy profile, ECDSA", ".p12", []string{"OUTPUT_TYPE=P12", "P12_PROFILE=legacy", "KEY_ALGORITHM=ECDSA-P256"}},
	{"JKS, in place", ".jks", []string{"OUTPUT_TYPE=JKS", "OUTPUT_LAYOUT=inplace"}},
}

func keytool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := peer.Keytool(t, args...).CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

func TestPublishedStores_keytool_showsAliasesEntriesAndChain(t *testing.T) {
	s := start(t)
	for _, p := range publications {
		t.Run(p.name, func(t *testing.T) {
			volume := fetch(t, s, p.environment...)
			list := func(store string) string {
				return keytool(t, "-list", "-v",
					"-keystore", filepath.Join(volume, store+p.extension), "-storepass:file", filepath.Join(volume, store+".pass"))
			}
			keystore, truststore := list("keystore"), list("truststore")
			assert.Contains(t, keystore, "Your keystore contains 1 entry")
			assert.Contains(t, keystore, "Alias name: certificate")
			assert.Contains(t, keystore, "Entry type: PrivateKeyEntry")
			assert.Contains(t, keystore, "Certificate chain length: 2")
			assert.Contains(t, keystore, "CN=app.example.org, C=SE, ST=Skane, O=Example")
			assert.Contains(t, truststore, "Your keystore contains 1 entry")
			assert.Contains(t, truststore, "Alias name: trusted-certificate-1")
			assert.Contains(t, truststore, "Entry type: trustedCertEntry")
		})
	}
}

// OpenStores opens each store with the password beside it, gets the key, and completes a mutual TLS
// handshake with it, as both sides.
func TestPublishedStores_JVM_completesMutualTLS(t *testing.T) {
	s := start(t)
	var args []string
	for _, p := range publications {
		volume := fetch(t, s, p.environment...)
		for _, store := range []string{"keystore", "truststore"} {
			args = append(args, filepath.Join(volume, store+p.extension), filepath.Join(volume, store+".pass"))
		}
	}
	out, err := peer.Java(t, "", "../java/OpenStores.java", args...).CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestPublishedFiles_openssl_agrees(t *testing.T) {
	openssl := peer.Require(t, "openssl")[0]
	s := start(t)
	volume := fetch(t, s, "OUTPUT_TYPE=PEM,P12")
	file := func(name string) string { return filepath.Join(volume, name) }

	leaf := filepath.Join(t.TempDir(), "leaf.pem")
	text, err := os.ReadFile(file("keystore.pem"))
	require.NoError(t, err)
	first, _, found := strings.Cut(string(text), "-----END CERTIFICATE-----")
	require.True(t, found)
	require.NoError(t, os.WriteFile(leaf, []byte(first+"-----END CERTIFICATE-----\n"), 0o600))
	assert.Contains(t, output(t, openssl, "verify", "-CAfile", file("truststore.pem"), "-untrusted", file("keystore.pem"), "-x509_strict", leaf), ": OK")

	publicOfKey := output(t, openssl, "pkey", "-in", file("key.pem"), "-pubout")
	assert.Equal(t, publicOfKey, output(t, openssl, "x509", "-in", leaf, "-noout", "-pubkey"))
	assert.Equal(t, publicOfKey, output(t, openssl, "pkey", "-in", file("keystore-combined.pem"), "-pubout"))

	dump := output(t, openssl, "pkcs12", "-in", file("keystore.p12"), "-passin", "file:"+file("keystore.pass"), "-nodes")
	assert.Contains(t, dump, "friendlyName: certificate")
	assert.Equal(t, 2, strings.Count(dump, "BEGIN CERTIFICATE"))
	assert.Contains(t, output(t, openssl, "pkcs12", "-in", file("truststore.p12"), "-passin", "file:"+file("truststore.pass"), "-nokeys"), "friendlyName: trusted-certificate-1")
}

// Stores that keytool writes, under names that say the other format, are the client's own identity.
func TestMutualTLS_storesMadeByKeytool_areAccepted(t *testing.T) {
	s := start(t)
	dir := t.TempDir()
	for _, store := range []struct{ source, destination, format string }{
		{"client.p12", "client-pkcs12.jks", "PKCS12"}, {"truststore.p12", "truststore-pkcs12.jks", "PKCS12"},
		{"client.p12", "client-jks.p12", "JKS"}, {"truststore.p12", "truststore-jks.p12", "JKS"},
	} {
		keytool(t, "-importkeystore", "-noprompt",
			"-srckeystore", filepath.Join(s.Dir, store.source), "-srcstorepass", service.Password,
			"-destkeystore", filepath.Join(dir, store.destination), "-deststoretype", store.format, "-deststorepass", service.Password)
	}
	for _, format := range []string{"-pkcs12.jks", "-jks.p12"} {
		fetch(t, s, "KEYSTORE_PATH="+filepath.Join(dir, "client"+format), "TRUSTSTORE_PATH="+filepath.Join(dir, "truststore"+format))
	}
	assert.Equal(t, 2, s.Requests())
}
