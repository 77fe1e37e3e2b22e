package kata_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/barepod"
)

// selfSigned is a certificate that is its own authority.
func selfSigned(t *testing.T) (pair tls.Certificate, cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peer"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	ok(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	ok(t, err)
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	pair, err = tls.X509KeyPair(cert, key)
	ok(t, err)
	return pair, cert, key
}

// A peer pod's runtime speaks with the agent over TCP; one with another
// certificate, or with none, is not answered.
func TestPeerPod(t *testing.T) {
	t.Parallel()
	_, agentCert, agentKey := selfSigned(t)
	node, nodeCert, _ := selfSigned(t)
	stranger, _, _ := selfSigned(t)
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		ok(t, os.WriteFile(path, content, 0o600))
		return path
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	address := l.Addr().String()
	ok(t, l.Close())
	start(t, barepod.Config{Listen: "tcp://" + address, Args: []string{
		"--tls-cert", write("cert", agentCert), "--tls-key", write("key", agentKey), "--tls-client-ca", write("ca", nodeCert),
	}})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(agentCert)
	check := func(certificates ...tls.Certificate) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		dialer := &tls.Dialer{Config: &tls.Config{RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS13}}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		c := ttrpc.NewClient(conn)
		defer func() { _ = c.Close() }()
		_, err = agent.NewHealthClient(c).Check(ctx, &agent.CheckRequest{})
		return err
	}
	deadline := time.Now().Add(60 * time.Second)
	for err = check(node); err != nil && time.Now().Before(deadline); {
		err = check(node)
	}
	if err != nil {
		t.Fatalf("the node: %v", err)
	}
	if err := check(stranger); err == nil {
		t.Error("a stranger was answered")
	}
	if err := check(); err == nil {
		t.Error("somebody without a certificate was answered")
	}
	if err := check(node); err != nil {
		t.Errorf("the node, after strangers: %v", err)
	}
}
