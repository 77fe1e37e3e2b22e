package agent

import (
	"bytes"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// Certificates, key and CA in files can be replaced while the agent runs. What is
// there in part, or not at all, changes nothing.
func TestCertificatesAreRenewed(t *testing.T) {
	dir := t.TempDir()
	o := Options{TLSCert: filepath.Join(dir, "cert"), TLSKey: filepath.Join(dir, "key"), TLSClientCA: filepath.Join(dir, "ca")}
	put := func(path string, content []byte) {
		t.Helper()
		tmp := path + ".new"
		if err := os.WriteFile(tmp, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, path); err != nil {
			t.Fatal(err)
		}
	}
	oldServers, newServers, oldRuntimes, newRuntimes := newAuthority(t), newAuthority(t), newAuthority(t), newAuthority(t)
	install := func(servers, runtimes *authority) {
		t.Helper()
		cert, key := servers.issue(x509.ExtKeyUsageServerAuth, 0)
		put(o.TLSCert, cert)
		put(o.TLSKey, key)
		put(o.TLSClientCA, runtimes.pem)
	}
	install(oldServers, oldRuntimes)
	var log bytes.Buffer // written by handshakes, which are over when a test has its answer
	config, err := listenTLS(o, settings.ListenTLS{}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	address := echoesWith(t, config)
	try := func(what string, servers, runtimes *authority, ok bool) {
		t.Helper()
		if err := say(t.Context(), address, runtimes.client(servers, x509.ExtKeyUsageClientAuth, 0)); (err == nil) != ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	try("at first", oldServers, oldRuntimes, true)
	try("too early", newServers, newRuntimes, false)

	cert, key := newServers.issue(x509.ExtKeyUsageServerAuth, 0)
	put(o.TLSCert, cert)
	try("with the key still to come", oldServers, oldRuntimes, true)
	put(o.TLSKey, key)
	try("a new certificate", newServers, oldRuntimes, true)
	try("the old one", oldServers, oldRuntimes, false)

	put(o.TLSClientCA, newRuntimes.pem)
	try("a new CA", newServers, newRuntimes, true)
	try("the old CA", newServers, oldRuntimes, false)

	for name, spoil := range map[string]func(){
		"nothing in it":   func() { put(o.TLSClientCA, nil) },
		"it is not there": func() { _ = os.Remove(o.TLSClientCA) },
	} {
		spoil()
		try(name, newServers, newRuntimes, true)
		try(name, newServers, oldRuntimes, false)
	}
	install(oldServers, oldRuntimes)
	try("at last", oldServers, oldRuntimes, true)
	if got := log.String(); strings.Count(got, "were renewed") != 3 || !strings.Contains(got, "cannot be renewed") {
		t.Errorf("the log says %s", got)
	}
}
