package tdx

import (
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

func TestSimulatedEvidencePasses(t *testing.T) {
	for name, tdx15 := range map[string]bool{"TDX 1.0, version 4": false, "TDX 1.5, version 5": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(l *Launch) { l.TDX15 = tdx15 })
			ev, err := l.sim.Evidence(t.Context(), challenge)
			if err != nil {
				t.Fatal(err)
			}
			got, err := l.verifier().Verify(t.Context(), ev, l.expected())
			if err != nil {
				t.Fatal(err)
			}
			if want := (measure.Root{Name: "lab", Simulated: true}); got.Root != want {
				t.Errorf("root %+v, want %+v", got.Root, want)
			}
			for _, c := range got.Checks {
				if c.Outcome != measure.Passed {
					t.Errorf("%s is %s: %s", c.Name, c.Outcome, c.Reason)
				}
			}
			if len(got.Checks) != 8 || got.Platform != measure.TDX || got.Class != "cpu" {
				t.Errorf("verdict %+v", got)
			}
		})
	}
}

func TestClaims(t *testing.T) {
	l := newLab(t, func(l *Launch) { l.TDX15 = true })
	got, err := l.verify(l.verifier(), l.evidence(), l.expected())
	if err != nil {
		t.Fatal(err)
	}
	p, err := Simulate(l.launch)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]any{
		"tcb_status": "UpToDate", "collateral_expiration_status": "0", "tcb_eval_num": json.Number("17"),
		"report_data": hex.EncodeToString(challenge[:]), "init_data": hex.EncodeToString(l.launch.InitDataDigest),
		"simulated_root": "lab", "sgx_type": "Scalable", "fmspc": "53494d000000",
	} {
		if got.Claims[path] != want {
			t.Errorf("%s is %v, want %v", path, got.Claims[path], want)
		}
	}
	quote := got.Claims["quote"].(measure.Claims)
	body := quote["body"].(measure.Claims)
	for name, want := range map[string]any{
		"mr_td": hex.EncodeToString(p.MRTD[:]), "rtmr_1": hex.EncodeToString(p.RTMR[1][:]), "rtmr_2": hex.EncodeToString(p.RTMR[2][:]),
		"td_attributes": "0000001000000000", "xfam": "e702060000000000", "tee_tcb_svn2": "05010600000000000000000000000000",
	} {
		if body[name] != want {
			t.Errorf("%s is %v, want %v", name, body[name], want)
		}
	}
	if quote["type"] != "0300" || quote["size"] != "88020000" {
		t.Errorf("type %v, size %v", quote["type"], quote["size"])
	}
	header := quote["header"].(measure.Claims)
	if header["tee_type"] != "81000000" || header["version"] != "0500" || header["vendor_id"] != "939a7233f79c4ca9940a0db3957f0607" {
		t.Errorf("header %v", header)
	}
	if a := got.Claims["td_attributes"].(measure.Claims); a["debug"] != false || a["septve_disable"] != true || a["migratable"] != false {
		t.Errorf("td_attributes %v", a)
	}
}
