// Package attesters lets guests prove themselves to a real broker through the
// interfaces that Linux has for hardware: what is behind them is a simulated
// vendor or a software TPM, and everything above is the code that a guest runs.
package attesters

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/obtain"
	"github.com/vouchsafe-cc/vouchsafe/measure/obtain/obtaintest"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

const (
	bin    = "../../bin"
	key    = "attesters/key/1"
	secret = "what only an attested guest gets"
)

// The policy affirms a guest by what its platform measures: the launch, or what
// was recorded at run time.
const attestationPolicy = `package policy
import rego.v1
default executables := 33
executables := 3 if input.snp.measurement in query_reference_value("wanted")
executables := 3 if input.tdx.quote.body.rtmr_3 in query_reference_value("wanted")
executables := 3 if input["az-snp-vtpm"].tpm.pcr14 in query_reference_value("wanted")
executables := 3 if input.tpm.pcr14 in query_reference_value("wanted")
trust_claims := {"executables": executables, "hardware": 2, "configuration": 2}
`

// event is what guests record before they may have the key.
var event = eventlog.RuntimeEvent{
	Domain: "github.com/confidential-containers", Operation: "PullImage",
	Content: `{"image":"registry.example/shop:1", "digest":"sha256:5d1c"}`,
}

type stage struct {
	*testing.T
	world *world.World
}

func newStage(t *testing.T) *stage {
	t.Helper()
	if _, err := os.Stat(filepath.Join(bin, "kbs")); err != nil {
		t.Skip("the commands are not built: make build")
	}
	programs, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{T: t}
	if s.world, err = world.New(t.TempDir(), programs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.world.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *stage) run(program string, args ...string) string {
	s.Helper()
	out, err := s.world.Run(s.Context(), program, args...)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

func (s *stage) write(name, text string) string {
	s.Helper()
	path := s.world.Path(name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	return path
}

// broker starts a broker with the secret and the policies. wanted is the
// reference value.
func (s *stage) broker(roots map[string]string, config string, wanted []byte) {
	s.Helper()
	s.world.BrokerConfig = config
	if err := s.world.StartBroker(s.Context(), roots); err != nil {
		s.Fatal(err)
	}
	if err := s.world.GiveKey(s.Context(), key, secret, attestationPolicy, wanted); err != nil {
		s.Fatal(err)
	}
}

// open finds the platform of a machine, as the agent does.
func (s *stage) open(k *tsmtest.Kernel, want measure.Platform) *obtain.Guest {
	s.Helper()
	g, err := obtain.Open(s.Context(), obtain.Config{
		Machine: obtaintest.Machine(k), RuntimeLog: filepath.Join(s.world.Dir, "run", "eventlog"), Record: true,
	})
	if err != nil {
		s.Fatal(err)
	}
	if p := g.Attester.Platform(); p != want {
		s.Fatalf("the machine is found to be %s, want %s", p, want)
	}
	return g
}

// fetch attests to the broker and asks for the secret.
func (s *stage) fetch(ctx context.Context, g *obtain.Guest) (string, error) {
	s.Helper()
	ca, err := os.ReadFile(s.world.Broker.CA)
	if err != nil {
		s.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	c, err := client.New(client.Config{URL: s.world.Broker.URL, RootCAs: roots, Attester: g.Attester})
	if err != nil {
		s.Fatal(err)
	}
	defer c.Close()
	value, err := c.Resource(ctx, "kbs:///"+key)
	if err != nil {
		return "", err
	}
	defer value.Destroy()
	return string(value.Reveal()), nil
}

func (s *stage) gets(g *obtain.Guest) {
	s.Helper()
	if got, err := s.fetch(s.Context(), g); err != nil || got != secret {
		s.Errorf("got %q, %v", got, err)
	}
}

func (s *stage) isDenied(g *obtain.Guest) {
	s.Helper()
	if _, err := s.fetch(s.Context(), g); err == nil || !strings.Contains(err.Error(), "policy_denied") {
		s.Errorf("got %v, want policy_denied", err)
	}
}

func TestSNP(t *testing.T) {
	s := newStage(t)
	agent := s.write("agent", "an agent")
	s.run("measure", "sim", "vendor", s.world.Path("vendor"))
	guest := func(name, commandLine string) (*obtain.Guest, []byte) {
		dir := s.world.Path(name)
		measurement, err := hex.DecodeString(strings.TrimSpace(s.run("measure", "sim", "guest", "--vendor", s.world.Path("vendor"), "--out", dir, "--image", agent, "--cmdline", commandLine)))
		if err != nil {
			t.Fatal(err)
		}
		sim, err := snp.OpenSimulator(dir)
		if err != nil {
			t.Fatal(err)
		}
		return s.open(obtaintest.SNP(sim), measure.SNP), measurement
	}
	good, measurement := guest("good", "quiet")
	other, _ := guest("other", "quiet init=/bin/sh")
	s.broker(map[string]string{"lab": s.world.Path("vendor", "root.pem")}, "", measurement)
	s.gets(good)
	s.isDenied(other)
}

// A TD gets the key once it has recorded what the policy wants, and loses it
// with the next event.
func TestTDX(t *testing.T) {
	s := newStage(t)
	vendor, dir := s.world.Path("vendor"), s.world.Path("guest")
	s.run("measure", "sim", "tdx", "vendor", vendor)
	s.run("measure", "sim", "tdx", "guest", "--vendor", vendor, "--out", dir, "--image", s.write("agent", "an agent"), "--cmdline", "quiet")
	sim, err := tdx.OpenSimulator(dir)
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := obtaintest.TDX(sim)
	if err != nil {
		t.Fatal(err)
	}
	g := s.open(kernel, measure.TDX)
	record, err := event.Event(4, eventlog.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	wanted := eventlog.Extend(eventlog.SHA384, make([]byte, 48), record.Digests[eventlog.SHA384])
	s.broker(nil, fmt.Sprintf("[verifier.tdx]\nenabled = true\ninsecure_no_collateral = true\ninsecure_simulated_roots = [{name = \"lab\", path = %q}]\n", filepath.Join(vendor, "root.pem")), wanted)
	s.isDenied(g)
	s.record(g)
	s.gets(g)
	s.record(g)
	s.isDenied(g)
}

func (s *stage) record(g *obtain.Guest) {
	s.Helper()
	if err := g.Log.Extend(s.Context(), g.RuntimePCR, event); err != nil {
		s.Fatal(err)
	}
}

// The agent's own program with a TPM of another maker.
func TestTPM(t *testing.T) {
	s := newStage(t)
	socket := swtpmtest.Socket(t)
	log, ak := s.world.Path("eventlog"), s.world.Path("ak.pem")
	s.run("measure", "obtain", "--platform", "tpm", "--tpm-device", socket, "--runtime-log", log, "--report-data", "00", "--ak-out", ak)
	wanted := make([]byte, 32) // PCR 14 before anything is recorded
	s.broker(nil, fmt.Sprintf("[verifier.tpm]\nenabled = true\nenrolled_keys = [{name = \"swtpm\", path = %q}]\n", ak), wanted)
	cmdline := s.write("cmdline", "quiet")
	resource := func(device string) (string, error) {
		return s.world.Run(t.Context(), "guest-agent", "resource", "kbs:///"+key, "--platform", "tpm", "--tpm-device", device, "--runtime-log", log,
			"--kernel-cmdline", cmdline, "--kbs", s.world.Broker.URL, "--kbs-ca", s.world.Broker.CA)
	}
	if got, err := resource(socket); err != nil || got != secret {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := resource(swtpmtest.Socket(t)); err == nil {
		t.Error("a TPM whose key nobody enrolled gets the secret")
	}
	g, err := obtain.Open(t.Context(), obtain.Config{Machine: obtain.ThisMachine(socket), Platform: measure.TPM, RuntimeLog: log, Record: true})
	if err != nil {
		t.Fatal(err)
	}
	s.record(g)
	if out, err := resource(socket); err == nil || bytes.Contains([]byte(out), []byte(secret)) {
		t.Error("a guest gets the secret that recorded what the policy does not want")
	}
}
