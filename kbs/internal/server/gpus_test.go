package server_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/nvidia"
)

// gpus makes simulated GPUs of a vendor, and returns them with their
// directory.
func gpus(t testing.TB, vendorDir string, count int) (*nvidia.Simulator, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "gpus")
	if err := nvidia.CreateGuest(vendorDir, dir, nvidia.Launch{Count: count}); err != nil {
		t.Fatal(err)
	}
	sim, err := nvidia.OpenSimulator(dir)
	if err != nil {
		t.Fatal(err)
	}
	return sim, dir
}

// gpuStage accepts guests with two GPUs of the returned vendor.
func gpuStage(t testing.TB) (*stage, string) {
	t.Helper()
	vendorDir := filepath.Join(t.TempDir(), "authority")
	if err := nvidia.CreateVendor(vendorDir); err != nil {
		t.Fatal(err)
	}
	_, dir := gpus(t, vendorDir, 1)
	s := newStage(t)
	s.know()
	s.restartWith(func(c *config.Config) {
		c.Verifier.NVIDIA = config.NVIDIA{
			Enabled: true, Devices: []int{2}, InsecureNoRevocation: true,
			Manifests:              []string{filepath.Join(dir, "driver.rim.json"), filepath.Join(dir, "vbios.rim.json")},
			InsecureSimulatedRoots: []config.SimulatedRoot{{Name: "foundry", Path: filepath.Join(vendorDir, "root.pem")}},
		}
	})
	s.accept("lab", "foundry")
	for name, value := range map[string]string{
		"allowed_driver_versions": `["550.90.07"]`, "allowed_vbios_versions": `["96.00.9f.00.01"]`, "gpu_revocation": `["not-checked"]`,
	} {
		s.putJSON(api.PathRefValues+"/"+name, api.RefValue{Version: -1, Value: json.RawMessage(value)})
	}
	return s, vendorDir
}

func (s *stage) withGPUs(sim *nvidia.Simulator) *client.Client {
	s.t.Helper()
	return s.clientOf(guest(s.t, "lab", "agent 1"), func(c *client.Config) { c.Devices = []measure.Attester{sim} })
}

// One piece of evidence is that of all GPUs of a guest: each has a submod with
// its own claims, and all of them must be good.
func TestSeveralGPUsInOneEvidence(t *testing.T) {
	s, vendorDir := gpuStage(t)
	two, _ := gpus(t, vendorDir, 2)
	c := s.withGPUs(two)
	tok, err := c.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	subs := submods(t, string(tok.JWT.Reveal()))
	chips := map[string]bool{}
	for _, name := range []string{"gpu0", "gpu1"} {
		var evidence struct {
			NVIDIA struct {
				Serial string `json:"certificate_serial"`
				Result string `json:"measres"`
			} `json:"nvidia"`
		}
		if err := json.Unmarshal(subs[name]["ear.veraison.annotated-evidence"], &evidence); err != nil {
			t.Fatal(err)
		}
		chips[evidence.NVIDIA.Serial] = true
		if string(subs[name]["ear.status"]) != `"affirming"` || string(subs[name]["ear.vouchsafe.simulated-root"]) != `"foundry"` || evidence.NVIDIA.Result != "success" {
			t.Errorf("%s: %s", name, subs[name])
		}
	}
	if len(subs) != 3 || len(chips) != 2 || chips[""] {
		t.Errorf("%d submods of %d chips", len(subs), len(chips))
	}
	all := s.entries()
	e := all[len(all)-1]
	if e.Details["gpu1_platform"] != "nvidia" || e.Details["gpu1_simulated_root"] != "foundry" || e.Details["gpu1_waived_revocation"] == "" {
		t.Errorf("entry %+v", e)
	}
	if got, err := c.Resource(t.Context(), "kbs:///"+resourcePath); err != nil || string(got.Reveal()) != s.value {
		t.Errorf("two good GPUs: %v", err)
	}
}

// A list with anything wrong in it costs the whole token, also where all but
// one are good.
func TestGPUsRefused(t *testing.T) {
	s, vendorDir := gpuStage(t)
	stranger := filepath.Join(t.TempDir(), "stranger")
	if err := nvidia.CreateVendor(stranger); err != nil {
		t.Fatal(err)
	}
	one, _ := gpus(t, vendorDir, 1)
	strange, _ := gpus(t, stranger, 2)
	for name, c := range map[string]struct {
		sim  *nvidia.Simulator
		code fault.Code
		why  string
	}{
		"one that should be two": {one, fault.EvidenceInvalid, "there are not as many GPUs as expected"},
		"of nobody who is known": {strange, fault.RootUntrusted, "device 1: "},
	} {
		_, err := s.withGPUs(c.sim).Token(t.Context())
		f, ok := errors.AsType[*fault.Fault](err)
		if !ok || f.Code != c.code {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if x := s.explain(string(f.Ticket)); !strings.Contains(x.Cause, c.why) {
			t.Errorf("%s: the administrator reads %+v", name, x)
		}
	}

	// A policy that thinks less of one GPU is enough to release nothing.
	two, _ := gpus(t, vendorDir, 2)
	s.putJSON(api.PathRefValues+"/allowed_driver_versions", api.RefValue{Version: -1, Value: json.RawMessage(`["535.1"]`)})
	if _, err := s.withGPUs(two).Resource(t.Context(), "kbs:///"+resourcePath); fault.CodeOf(err) != fault.PolicyDenied {
		t.Errorf("a driver that nobody allowed: %v", err)
	}
}
