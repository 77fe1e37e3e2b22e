package world

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Broker is a running key broker.
type Broker struct {
	URL      string // for guests
	AdminURL string
	State    string // its state directory
	CA       string // file with the certificate that clients must trust

	world   *World
	process *process
}

// StartBroker starts `kbs serve` with a fresh state directory. It trusts the
// simulated roots named in the map (name to PEM file).
func (w *World) StartBroker(ctx context.Context, simulatedRoots map[string]string) error {
	guest, err := freeAddr()
	if err != nil {
		return err
	}
	admin, err := freeAddr()
	if err != nil {
		return err
	}
	b := &Broker{URL: "https://" + guest, AdminURL: "https://" + admin, State: w.Path("kbs-state"), world: w}
	b.CA = filepath.Join(b.State, "tls", "cert.pem")
	certificate, err := w.brokerCertificate(b)
	if err != nil {
		return err
	}
	var config strings.Builder
	fmt.Fprintf(&config, "[http_server]\n%ssockets = [%q]\nadmin_sockets = [%q]\nmetrics_sockets = []\n\n[limits] # all guests of a world have one address\nauth_per_second = 0\nattest_per_second = 0\n\n[verifier.snp]\ninsecure_simulated_roots = [\n", certificate, guest, admin)
	for name, file := range simulatedRoots {
		fmt.Fprintf(&config, "  { name = %q, path = %q },\n", name, file)
	}
	config.WriteString("]\n" + w.BrokerConfig)
	if err := os.WriteFile(w.Path("kbs.toml"), []byte(config.String()), 0o600); err != nil {
		return err
	}
	w.onClose(func() error { return b.process.stop() })
	w.Broker = b
	return b.serve(ctx)
}

// serve starts the program and waits until it says that it can serve.
func (b *Broker) serve(ctx context.Context) (err error) {
	cmd := exec.Command(filepath.Join(b.world.Bin, "kbs"), "serve", "--config", b.world.Path("kbs.toml"))
	cmd.Env = append(os.Environ(), "STATE_DIRECTORY="+b.State)
	if b.process, err = start("kbs", b.world.Path("kbs.log"), cmd, (*exec.Cmd).Start); err != nil {
		return err
	}
	return b.process.until(ctx, "ready", func() bool { return b.ready(ctx) })
}

// PID is the process of the broker, as it runs now.
func (b *Broker) PID() int { return b.process.cmd.Process.Pid }

// Log is the file with the broker's output.
func (b *Broker) Log() string { return b.process.log }

// Crash ends the broker without warning, as a power cut would, and starts it
// again with the state that it left.
func (b *Broker) Crash(ctx context.Context) error {
	b.process.once.Do(func() {
		_ = b.process.cmd.Process.Kill()
		<-b.process.done
	})
	return b.serve(ctx)
}

// HTTP returns a client that trusts the broker's certificate.
func (b *Broker) HTTP() (*http.Client, error) {
	pem, err := os.ReadFile(b.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", b.CA)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}}, nil
}

func (b *Broker) ready(ctx context.Context) bool {
	client, err := b.HTTP()
	if err != nil {
		return false // the certificate is not there yet
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.AdminURL+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// TokenFile is where the broker left the administrator's credential.
func (b *Broker) TokenFile() string { return filepath.Join(b.State, "admin", "token") }

// Ctl runs kbsctl as the administrator.
func (b *Broker) Ctl(ctx context.Context, args ...string) (string, error) {
	return b.world.Run(ctx, "kbsctl", append([]string{"--server", b.AdminURL, "--ca", b.CA, "--token-file", b.TokenFile()}, args...)...)
}

// Explain opens a ticket.
func (b *Broker) Explain(ctx context.Context, ticket string) (api.Explanation, error) {
	out, err := b.Ctl(ctx, "explain", "ticket/"+ticket, "-o", "json")
	if err != nil {
		return api.Explanation{}, err
	}
	var e api.Explanation
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		return api.Explanation{}, fmt.Errorf("kbsctl explain: %w: %s", err, out)
	}
	return e, nil
}

// AuditEntries downloads the whole log.
func (b *Broker) AuditEntries(ctx context.Context) ([]api.AuditEntry, error) {
	out, err := b.Ctl(ctx, "audit", "export")
	if err != nil {
		return nil, err
	}
	var list []api.AuditEntry
	for line := range strings.Lines(out) {
		var e api.AuditEntry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("kbsctl audit export: %w: %s", err, line)
		}
		list = append(list, e)
	}
	return list, nil
}
