// Package ociregistry is a real OCI registry on loopback: the reference
// implementation of the distribution project, served over TLS with a
// certificate made for the occasion, its blobs in plain files below a folder,
// so that a test can also spoil them.
package ociregistry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the engine named in the configuration
	"github.com/sirupsen/logrus"
)

// Registry is a running registry.
type Registry struct {
	Addr string // host:port on loopback
	CA   []byte // PEM certificate that clients must trust

	dir    string
	server *http.Server
	app    *handlers.App
	done   chan error
}

// Start serves a registry on the given loopback address ("127.0.0.1:0" picks a
// port) with its data below dir. It runs until Close. Its certificate is for
// loopback and for the other addresses at which it is reached.
func Start(dir, addr string, also ...net.IP) (*Registry, error) {
	logrus.SetOutput(io.Discard) // the library logs each request through its global logger
	cert, ca, err := selfSigned(also)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	config := &configuration.Configuration{
		Version: "0.1",
		Storage: configuration.Storage{
			"filesystem":  configuration.Parameters{"rootdirectory": data},
			"delete":      configuration.Parameters{"enabled": true},
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
		},
	}
	config.Catalog.MaxEntries = 1000
	app := handlers.NewApp(context.Background(), config)
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	r := &Registry{Addr: ln.Addr().String(), CA: ca, dir: data, app: app, done: make(chan error, 1)}
	r.server = &http.Server{
		Handler:           app,
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	go func() { r.done <- r.server.ServeTLS(ln, "", "") }()
	return r, nil
}

// Close stops the registry and waits for it.
func (r *Registry) Close() error {
	err := r.server.Close()
	if serveErr := <-r.done; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return errors.Join(err, r.app.Shutdown())
}

// FlipBit flips one bit in the middle of a stored blob, as a failing disk or a
// hostile registry would. The digest stays the name under which it is served.
func (r *Registry) FlipBit(digest string) error {
	algorithm, hex, ok := strings.Cut(digest, ":")
	if !ok || len(hex) < 2 {
		return fmt.Errorf("%q is no digest", digest)
	}
	path := filepath.Join(r.dir, "docker/registry/v2/blobs", algorithm, hex[:2], hex, "data")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var b [1]byte
	at := info.Size() / 2
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	return err
}

func selfSigned(also []net.IP) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: "loopback registry"},
		NotBefore:             now.Add(-time.Minute),
		NotAfter:              now.Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              []string{"localhost"},
		IPAddresses:           append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, also...),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, ca, nil
}
