package attesters

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/obtain"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

// azureVM is a paravisor: a software TPM whose NV index of the HCL report holds
// one of simulated SNP hardware, with the TPM's key and the guest's user data.
type azureVM struct {
	*tpmdev.TPM
	hardware *snp.Simulator
}

func (vm azureVM) ReadNV(ctx context.Context, index uint32) ([]byte, error) {
	if index != azure.ReportIndex {
		return vm.TPM.ReadNV(ctx, index)
	}
	user, err := vm.TPM.ReadNV(ctx, azure.UserDataIndex)
	if errors.Is(err, tpmdev.ErrNoIndex) {
		user, err = make([]byte, 64), nil
	}
	if err != nil {
		return nil, err
	}
	ak, err := vm.AttestationKey(ctx, azure.AKHandle, true)
	if err != nil {
		return nil, err
	}
	url := base64.RawURLEncoding.EncodeToString
	h := azure.HCLReport{Version: 2, RequestType: 2, Type: azure.ReportSNP, Hash: eventlog.SHA256}
	h.RuntimeData, err = json.Marshal(map[string]any{
		"keys": []any{map[string]any{
			"kid": "HCLAkPub", "key_ops": []string{"sign"}, "kty": "RSA",
			"e": url(big.NewInt(int64(ak.E)).Bytes()), "n": url(ak.N.Bytes()),
		}},
		"vm-configuration": map[string]any{"secure-boot": true}, "user-data": hex.EncodeToString(user),
	})
	if err != nil {
		return nil, err
	}
	e, err := vm.report(ctx, h.Binding())
	if err != nil {
		return nil, err
	}
	copy(h.Hardware[:], e.Report.Marshal())
	return h.Marshal(), nil
}

func (vm azureVM) report(ctx context.Context, digest []byte) (*snp.Evidence, error) {
	ev, err := measure.EvidenceOver(ctx, vm.hardware, digest)
	if err != nil {
		return nil, err
	}
	return snp.ParseEvidence(ev)
}

// ServeHTTP is the metadata service of the VM's host.
func (vm azureVM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, err := vm.report(r.Context(), []byte{0})
	if err != nil || r.URL.Path != "/metadata/THIM/amd/certification" {
		http.NotFound(w, r)
		return
	}
	vcek := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificates[0].Data})
	_ = json.NewEncoder(w).Encode(map[string]string{"vcekCert": string(vcek)})
}

// A guest of Azure is found by its TPM, and gets the key until it records
// something that the policy does not want.
func TestAzure(t *testing.T) {
	s := newStage(t)
	vendor, dir := s.world.Path("vendor"), s.world.Path("guest")
	s.run("measure", "sim", "vendor", vendor)
	s.run("measure", "sim", "guest", "--vendor", vendor, "--out", dir, "--image", s.write("agent", "the paravisor"), "--cmdline", "")
	sim, err := snp.OpenSimulator(dir)
	if err != nil {
		t.Fatal(err)
	}
	vm := azureVM{tpmdev.New(swtpmtest.Start(t)), sim}
	host := httptest.NewServer(vm)
	defer host.Close()
	g, err := obtain.Open(t.Context(), obtain.Config{
		Machine:    obtain.Machine{Kernel: &tsmtest.Kernel{}, TPM: vm, Metadata: azure.Metadata{URL: host.URL}},
		RuntimeLog: filepath.Join(s.world.Dir, "run", "eventlog"), Record: true,
	})
	if err != nil || g.Attester.Platform() != measure.AzSNPvTPM {
		t.Fatalf("found %+v, %v", g, err)
	}
	s.broker(nil, fmt.Sprintf("[verifier.az-snp-vtpm]\nenabled = true\ninsecure_simulated_roots = [{name = \"lab\", path = %q}]\n", filepath.Join(vendor, "root.pem")), make([]byte, 32))
	s.gets(g)
	s.record(g)
	s.isDenied(g)
}
