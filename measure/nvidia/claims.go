package nvidia

import (
	"crypto/x509"
	"encoding/hex"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// ClaimSimulatedRoot is the claim that names the root of simulated evidence.
// It is absent under NVIDIA's root.
const ClaimSimulatedRoot = "simulated_root"

// Claims of ours: what the field's verifier of local evidence leaves out.
const (
	// ClaimMeasurements is "success" if the measurements are those of the
	// manifests, "fail" if not, "absent" if nothing was compared. NVIDIA's remote
	// service has a claim of this name and meaning.
	ClaimMeasurements = "measres"
	// ClaimRevocation is "not-checked".
	ClaimRevocation = "revocation"
)

// claims are those of the report, with what was found out about it.
func (a *examination) claims() measure.Claims {
	c := a.report.Claims()
	c["arch"], c["uuid"] = display(a.device.Arch), a.device.UUID
	c["certificate_serial"] = a.chain[0].SerialNumber.Text(16)
	c["chip"] = chipOf(a.chain)
	c[ClaimRevocation] = "not-checked"
	c[ClaimMeasurements] = a.measres()
	if a.root != nil && a.root.simulated {
		c[ClaimSimulatedRoot] = a.root.name
	}
	return c
}

// measres is claimed after checkTCB.
func (a *examination) measres() string {
	if a.matched {
		return "success"
	}
	arch := a.device.Arch
	if a.v.manifestFor(arch, Driver, a.report.Driver()) == nil || a.v.manifestFor(arch, VBIOS, a.report.VBIOS()) == nil {
		return "absent"
	}
	return "fail"
}

// Claims returns what the report claims, whether or not it is true, under the
// names of kbs-protocol 16.8. Arch and uuid are not in the report.
func (r *Report) Claims() measure.Claims {
	measurements := measure.Claims{}
	for i, m := range r.Measurements {
		measurements[strconv.Itoa(i)] = hex.EncodeToString(m)
	}
	return measure.Claims{"measurements": measurements, "config": r.config()}
}

// display spells a generation as the field's claims do.
func display(a Arch) string {
	switch a {
	case Hopper:
		return "Hopper"
	case Blackwell:
		return "Blackwell"
	}
	return string(a)
}

// chipOf names the GPU by its own certificate, the second of the chain: the
// name holds model and stepping, the serial number the chip's identity.
func chipOf(chain []*x509.Certificate) string {
	if len(chain) < 2 {
		return ""
	}
	return chain[1].Subject.CommonName + " " + chain[1].Subject.SerialNumber
}
