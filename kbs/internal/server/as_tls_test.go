package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/attestation"
)

// clientPair is a certificate authority in a file and a client's certificate of
// its making.
func clientPair(t *testing.T) (path string, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "other brokers"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// With TLS, gRPC and the key set still share one port; with client_ca, nobody
// without a certificate gets through.
func TestServicesOverTLS(t *testing.T) {
	s := newStage(t)
	s.stop()
	ca, pair := clientPair(t)
	s.cfg.AttestationService.GRPC.Sockets = []string{"127.0.0.1:0"}
	s.cfg.AttestationService.REST.Sockets = []string{"127.0.0.1:0"}
	s.cfg.AttestationService.GRPC.ClientCA = ca
	s.start()
	ask := func(certs ...tls.Certificate) error {
		conf := tlsRoots(s.roots)
		conf.Certificates = certs
		conn, err := grpc.NewClient(s.listeners.AS[0].Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(conf)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = pb.NewAttestationServiceClient(conn).GetAttestationChallenge(t.Context(), &pb.ChallengeRequest{Inner: map[string]string{"tee": "snp"}})
		return err
	}
	if err := ask(pair); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	if err := ask(); status.Code(err) != codes.Unavailable {
		t.Errorf("without: %v", err)
	}
	_, stranger := clientPair(t)
	if err := ask(stranger); status.Code(err) != codes.Unavailable {
		t.Errorf("with a stranger's: %v", err)
	}
	for _, http2 := range []bool{false, true} {
		conf := tlsRoots(s.roots)
		conf.Certificates = []tls.Certificate{pair}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: http2}}
		resp, err := client.Get("https://" + s.listeners.AS[0].Addr().String() + api.PathJWKS)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || (resp.ProtoMajor == 2) != http2 {
			t.Errorf("key set: %s %s", resp.Proto, resp.Status)
		}
		client.CloseIdleConnections()
	}
	if a := s.send(http.MethodGet, "https://"+s.listeners.REST[0].Addr().String()+"/healthz", nil); a.status != http.StatusOK {
		t.Errorf("REST over TLS: %d", a.status)
	}
}
