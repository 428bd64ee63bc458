package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/youmark/pkcs8"
)

// signer signs as cosign does with a key file: ECDSA with SHA-256 on P-256. Its signatures follow from key and content
// alone (RFC 6979), so that a signed release can be made again as well.
type signer struct{ key *ecdsa.PrivateKey }

// loadKey reads the key that RELEASE_KEY names: SEC 1 or PKCS#8 as openssl writes them, the latter also encrypted, or
// cosign's own format. Without one it returns nil.
func loadKey() (*signer, error) {
	path := os.Getenv("RELEASE_KEY")
	if path == "" {
		return nil, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("RELEASE_KEY: %w", err)
	}
	var password []byte
	if file := os.Getenv("RELEASE_KEY_PASSWORD_FILE"); file != "" {
		if password, err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("RELEASE_KEY_PASSWORD_FILE: %w", err)
		}
		password = []byte(strings.TrimRight(string(password), "\r\n"))
	}
	key, err := parseKey(content, password)
	if err != nil {
		return nil, fmt.Errorf("RELEASE_KEY has %q: %w", path, err)
	}
	if key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("RELEASE_KEY has %q with a key on %s, want P-256", path, key.Params().Name)
	}
	return &signer{key}, nil
}

func parseKey(content, password []byte) (*ecdsa.PrivateKey, error) {
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		der := block.Bytes
		switch block.Type {
		case "EC PARAMETERS":
			continue
		case "EC PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, fmt.Errorf("the old encryption of PEM, want PKCS#8: openssl pkcs8 -topk8 writes it")
			}
			return x509.ParseECPrivateKey(der)
		case "ENCRYPTED PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY":
			if len(password) == 0 {
				return nil, fmt.Errorf("encrypted: want its password in the file that RELEASE_KEY_PASSWORD_FILE names")
			}
			if block.Type == "ENCRYPTED PRIVATE KEY" {
				return pkcs8.ParsePKCS8PrivateKeyECDSA(der, password)
			}
			var err error
			if der, err = encrypted.Decrypt(der, password); err != nil {
				return nil, err
			}
			fallthrough
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(der)
			if err != nil {
				return nil, err
			}
			if key, is := key.(*ecdsa.PrivateKey); is {
				return key, nil
			}
			return nil, fmt.Errorf("a %T, want an ECDSA key on P-256", key)
		}
	}
	return nil, fmt.Errorf("no private key in PEM: openssl ecparam -name prime256v1 -genkey -noout makes one")
}

// signature is that of content: ECDSA in ASN.1, of SHA-256.
func (s *signer) signature(content []byte) ([]byte, error) {
	sum := sha256.Sum256(content)
	return s.key.Sign(nil, sum[:], crypto.SHA256)
}

// public is the public key in DER.
func (s *signer) public() []byte {
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		panic(err) // it is on P-256
	}
	return der
}

func (s *signer) id() string { return fmt.Sprintf("%x", sha256.Sum256(s.public())) }

// signManifest adds the signature of a manifest as cosign does: a manifest with the tag sha256-DIGEST.sig, which has
// the signed statement as its layer.
func (r *release) signManifest(l *ociLayout, signed v1.Descriptor, name string) {
	if r.sign == nil || l.err != nil {
		return
	}
	payload := encode(map[string]any{
		"critical": map[string]any{
			"identity": map[string]string{"docker-reference": name},
			"image":    map[string]string{"docker-manifest-digest": signed.Digest.String()},
			"type":     "cosign container image signature",
		},
		"optional": nil,
	})
	signature, err := r.sign.signature(payload)
	if err != nil {
		l.err = err
		return
	}
	layer := l.blob(signatureType, payload)
	layer.Annotations = map[string]string{
		"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)}
	config := v1.ConfigFile{
		Created: v1.Time{Time: r.time}, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{layer.Digest}}}
	manifest := l.manifest(types.OCIManifestSchema1, v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: l.manifest(types.OCIConfigJSON, config), Layers: []v1.Descriptor{layer}})
	l.tag(manifest, strings.Replace(signed.Digest.String(), ":", "-", 1)+".sig")
}
