package platforms

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
)

// agent runs the guest agent's own command on a machine with the given TPM.
func (s *stage) agent(socket string, args ...string) (string, error) {
	s.Helper()
	return s.World.Run(s.Context(), "guest-agent", append(args, "--platform", "tpm", "--tpm-device", socket, "--runtime-log", s.Path("absent"))...)
}

func (s *stage) agentFetches(socket string) (string, error) {
	s.Helper()
	cmdline := s.Path("cmdline")
	s.must(os.WriteFile(cmdline, nil, 0o600))
	return s.agent(socket, "resource", "kbs:///"+resource, "--kbs", s.Broker.URL, "--kbs-ca", s.Broker.CA, "--kernel-cmdline", cmdline)
}

// key is the attestation key of a TPM as its owner enrols it: read from what
// the machine says while they sit in front of it.
func (s *stage) key(socket string) []byte {
	s.Helper()
	out, err := s.agent(socket, "evidence", "--report-data", "00")
	s.must(err)
	var evidence struct {
		Key string `json:"ak_public"`
	}
	s.must(json.Unmarshal([]byte(out), &evidence))
	der, err := base64.StdEncoding.DecodeString(evidence.Key)
	s.must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func extend(t *testing.T, chip *tpmdev.TPM, pcr int, text string) {
	t.Helper()
	if err := chip.Extend(t.Context(), pcr, eventlog.SHA256, eventlog.SHA256.Sum([]byte(text))); err != nil {
		t.Fatal(err)
	}
}

// The agent as it is shipped, on a machine with a TPM of another maker: the
// broker releases the secret to what booted as was foreseen, and to nothing
// else, though the same TPM vouches for it.
func TestAGuestWithATPM(t *testing.T) {
	known, stranger := swtpmtest.Socket(t), swtpmtest.Socket(t)
	chip := tpmdev.New(tpmdev.File(known))
	extend(t, chip, tpm.KernelPCR, "the kernel")
	s := newStage(t, func(s *stage) string {
		s.must(os.WriteFile(s.Path("keys.pem"), s.key(known), 0o600))
		return fmt.Sprintf("[verifier.tpm]\nenabled = true\nenrolled_keys = [{name = \"racks\", path = %q}]\n", s.Path("keys.pem"))
	})
	pcr := hex.EncodeToString(eventlog.Extend(eventlog.SHA256, make([]byte, 32), eventlog.SHA256.Sum([]byte("the kernel"))))
	s.know(map[string]any{"tpm_pcr11": pcr, "tpm_ak_trust": "enrolled"})

	if got, err := s.agentFetches(known); err != nil || got != value {
		t.Fatalf("%q, %v", got, err)
	}
	_, err := s.agentFetches(stranger)
	s.refused(err, "root", "racks")

	extend(t, chip, tpm.KernelPCR, "something that was not foreseen")
	_, err = s.agentFetches(known)
	s.refused(err, "pcr11", pcr)
}

// A guest with a simulated TPM is one of a simulated root, however its key got
// into the list: the policies that a broker starts with refuse it.
func TestASimulatedTPM(t *testing.T) {
	var guest *tpm.Simulator
	launch := tpm.Launch{Image: []byte("agent"), CommandLine: "quiet"}
	s := newStage(t, func(s *stage) string {
		s.must(tpm.CreateVendor(s.Path("maker")), tpm.CreateGuest(s.Path("maker"), s.Path("guest"), launch))
		var err error
		guest, err = tpm.OpenSimulator(s.Path("guest"))
		s.must(err)
		return fmt.Sprintf("[verifier.tpm]\nenabled = true\nenrolled_keys = [{name = \"desk\", path = %q}]\n", s.Path("guest", "ak.pem"))
	})
	pcrs, err := tpm.Predict(launch)
	s.must(err)
	s.know(map[string]any{"tpm_pcr11": hex.EncodeToString(pcrs[tpm.KernelPCR]), "tpm_ak_trust": "enrolled"})
	_, err = s.fetch(guest)
	s.refused(err, "simulated-root", "")
	s.acceptRoot("desk")
	if got, err := s.fetch(guest); err != nil || got != value {
		t.Fatalf("%q, %v", got, err)
	}
}
