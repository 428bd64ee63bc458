package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/certfetcher/certfetcher/test/fixture"
)

const registryAddress = "127.0.0.1:5000"

// images are made of one program each, and known by the names that the documents and examples have for them.
var images = map[string][]string{
	"certfetcher": {"library/certfetcher:latest", "library/certfetcher:1.0", "certfetcher:1.0"},
	"certservice": {"library/certservice:latest", "certservice:1.0"},
	"devca":       {"library/devca:latest", "devca:1.0"},
	"pause":       {"pause:1.0"},
	"app":         {"shop:1.0", "library/your-application:latest", "library/your-application:1.0"},
}

// serveImages serves the images to containerd, which takes this registry for all others.
func serveImages() error {
	listener, err := net.Listen("tcp", registryAddress)
	if err != nil {
		return err
	}
	go http.Serve(listener, registry.New(registry.Logger(log.New(io.Discard, "", 0)))) //nolint:errcheck // never ends
	for program, references := range images {
		image, err := pack(program)
		for _, reference := range references {
			var at name.Reference
			if err == nil {
				at, err = name.ParseReference(registryAddress + "/" + reference)
			}
			if err == nil {
				err = remote.Write(at, image)
			}
		}
		if err != nil {
			return fmt.Errorf("image of %s: %w", program, err)
		}
	}
	return nil
}

// pack makes an image as the Dockerfile does: a program and nothing else, and an unprivileged user.
func pack(program string) (v1.Image, error) {
	content, err := os.ReadFile(filepath.Join(state, "images", program))
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	files := tar.NewWriter(&layer)
	err = errors.Join(
		files.WriteHeader(&tar.Header{Name: program, Mode: 0o755, Size: int64(len(content))}),
		func() error { _, err := files.Write(content); return err }(),
		files.WriteHeader(&tar.Header{Name: "var/run/certs/", Typeflag: tar.TypeDir, Mode: 0o755,
			Uid: 65532, Gid: 65532}),
		files.Close())
	if err != nil {
		return nil, err
	}
	packed, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer.Bytes())), nil
	})
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, packed)
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(image, &v1.ConfigFile{Architecture: "amd64", OS: "linux",
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{fixture.Must(packed.DiffID())}},
		Config: v1.Config{User: "65532:65532", Entrypoint: []string{"/" + program}}})
}

// serveNames answers what pods ask cluster DNS: addresses of Services. ca.example.org is the node.
func serveNames() error {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(state, "admin.conf"))
	if err != nil {
		return err
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	lookUp := func(host string) string {
		if host == "ca.example.org" {
			return address
		}
		service, found := strings.CutSuffix(strings.TrimSuffix(host, ".cluster.local"), ".svc")
		name, namespace, _ := strings.Cut(service, ".")
		if !found || namespace == "" {
			return ""
		}
		s, err := client.CoreV1().Services(namespace).Get(context.Background(), name, metav1.GetOptions{})
		if err != nil {
			return ""
		}
		return s.Spec.ClusterIP
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		answer := new(dns.Msg).SetReply(query)
		answer.Authoritative, answer.RecursionAvailable = true, true
		question := query.Question[0]
		if ip := lookUp(strings.ToLower(strings.TrimSuffix(question.Name, "."))); ip == "" {
			answer.Rcode = dns.RcodeNameError
		} else if question.Qtype == dns.TypeA {
			answer.Answer = append(answer.Answer, &dns.A{A: net.ParseIP(ip),
				Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}})
		}
		_ = w.WriteMsg(answer) // who has gone asks again
	})
	packets, err := net.ListenPacket("udp", address+":53")
	if err != nil {
		return err
	}
	connections, err := net.Listen("tcp", address+":53")
	if err != nil {
		return err
	}
	go (&dns.Server{PacketConn: packets, Handler: handler}).ActivateAndServe()   //nolint:errcheck // never ends
	go (&dns.Server{Listener: connections, Handler: handler}).ActivateAndServe() //nolint:errcheck // never ends
	// The tests themselves ask the same server.
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", address+":53")
	}}
	return nil
}

// identities makes the cluster's CA, the API server's certificate, and that of an administrator, which all components
// show. The API server's key signs the tokens of service accounts, too.
func identities() error {
	ca, err := fixture.NewCA("Cluster")
	if err != nil {
		return err
	}
	ca.Change = func(leaf *x509.Certificate) {
		leaf.Subject.Organization = []string{"system:masters"}
		leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(address), net.ParseIP("10.96.0.1"))
	}
	config := strings.NewReplacer("ADDRESS", address, "STATE", state).Replace(`
apiVersion: v1
kind: Config
current-context: cluster
contexts: [{name: cluster, context: {cluster: cluster, user: admin}}]
clusters: [{name: cluster, cluster: {server: "https://ADDRESS:6443", certificate-authority: STATE/ca.crt}}]
users: [{name: admin, user: {client-certificate: STATE/admin.crt, client-key: STATE/admin.key}}]
`)
	files := map[string][]byte{"ca.crt": fixture.CertificatesPEM(ca.Root), "admin.conf": []byte(config)}
	for _, who := range []string{"admin", "apiserver"} {
		key, chain, err := ca.Identity(who, "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local")
		if err != nil {
			return err
		}
		der, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
		if err != nil {
			return err
		}
		files[who+".crt"] = fixture.CertificatesPEM(chain...)
		files[who+".key"] = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(state, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
