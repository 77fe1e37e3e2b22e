package nvidia

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// checkReport demands a report over everything, of a GPU that is known.
func (a *examination) checkReport() measure.Check {
	var t measure.Tally
	if !a.report.Signed || !a.report.All {
		t.Fail(errors.New("the report was not requested with a signature over all measurements"))
	}
	if a.device.Arch != Hopper && a.device.Arch != Blackwell {
		t.Find("reports of this kind of device are not judged here", "arch", string(a.device.Arch), string(Hopper), string(Blackwell))
	} else if chip := archOf(a.chain[0]); chip != a.device.Arch {
		t.Find("the signing certificate is for another kind of GPU", "arch", string(a.device.Arch), a.chain[0].Subject.CommonName)
	}
	return t.Check(CheckReport)
}

func (a *examination) checkSignature() measure.Check {
	var t measure.Tally
	key, err := signingKey(a.chain[0])
	if err != nil {
		t.Fail(err)
		return t.Check(measure.CheckSignature)
	}
	digest := sha512.Sum384(a.report.message)
	r := new(big.Int).SetBytes(a.report.Signature[:signatureSize/2])
	s := new(big.Int).SetBytes(a.report.Signature[signatureSize/2:])
	if !ecdsa.Verify(key, digest[:], r, s) {
		t.Fail(errors.New("the key of the signing certificate did not sign this report"))
	}
	return t.Check(measure.CheckSignature)
}

// checkChain follows the certificates to the root, and ties the first to the
// firmware that the report is of.
func (a *examination) checkChain() measure.Check {
	var t measure.Tally
	if a.chainErr != nil {
		t.Fail(a.chainErr)
	}
	if a.root == nil {
		last := a.chain[len(a.chain)-1]
		var names []string
		for _, r := range a.v.roots {
			names = append(names, r.name)
		}
		t.Find("the chain does not end in a trusted root", measure.FieldRoot, fmt.Sprintf("%s, SHA-256 %s", last.Subject, fingerprint(last)), names...)
	}
	for _, c := range checkTimes(a.chain, a.now) {
		t.Find(fmt.Sprintf("the certificate %s is not valid at this time", c.Subject.CommonName), "time", a.now.UTC().Format(time.RFC3339),
			fmt.Sprintf("%s to %s", c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339)))
	}
	a.checkFirmware(&t)
	return t.Check(measure.CheckChain)
}

// checkFirmware demands that the signing key was made for the firmware of the
// report, by the GPU whose certificate comes next.
func (a *examination) checkFirmware(t *measure.Tally) {
	device, fwid, err := firmware(a.chain[0])
	if err != nil {
		t.Fail(err)
		return
	}
	if seen := a.report.Opaque[FieldFWID]; len(fwid) == 0 || !bytes.Equal(seen, fwid) {
		t.Find("the signing key is for other firmware", "config.fwid", hex.EncodeToString(seen), hex.EncodeToString(fwid))
	}
	if len(a.chain) < 2 || !bytes.Equal(device, a.chain[1].RawSubjectPublicKeyInfo) {
		t.Fail(errors.New("the signing certificate is for another GPU than the one whose certificate comes next"))
	}
}

func (a *examination) checkRevocation() measure.Check {
	const missing = "nobody asked whether a certificate of the chain was revoked: NVIDIA answers that by OCSP, which is not built"
	if a.v.cfg.UnsafeNoRevocation {
		return measure.Check{Name: measure.CheckRevocation, Outcome: measure.Waived, Reason: missing + "; waived by configuration (UnsafeNoRevocation)"}
	}
	return measure.Check{Name: measure.CheckRevocation, Outcome: measure.Failed, Reason: missing}
}

// checkTCB compares the measurements with the manifests of this driver and this
// VBIOS.
func (a *examination) checkTCB() measure.Check {
	var t, absent measure.Tally
	found := map[int]*manifest{}
	for _, component := range []Component{Driver, VBIOS} {
		version := a.report.release(component)
		m := a.v.manifestFor(a.device.Arch, component, version)
		if m == nil {
			absent.Find(fmt.Sprintf("no manifest of %s %s is given", component, version), "config."+string(component)+"_version", version, a.v.releases(a.device.Arch, component)...)
			continue
		}
		m.compare(a.report, &t)
		for index := range m.measurements {
			if other := found[index]; other != nil {
				t.Fail(fmt.Errorf("the manifests of %s %s and %s %s both say what measurement %d is", other.component, other.version, m.component, m.version, index))
			}
			found[index] = m
		}
	}
	a.matched = t.Clean() && absent.Clean()
	if t.Clean() && !absent.Clean() {
		c := absent.Check(measure.CheckTCB)
		if a.v.cfg.UnsafeNoManifest {
			c.Outcome, c.Reason = measure.Waived, c.Reason+"; waived by configuration (UnsafeNoManifest)"
		}
		return c
	}
	return t.Check(measure.CheckTCB)
}

// releases lists what manifests there are, for an administrator to see.
func (v *Verifier) releases(arch Arch, c Component) []string {
	var out []string
	for _, m := range v.manifests {
		if m.arch == arch && m.component == c {
			out = append(out, m.version)
		}
	}
	return out
}

// checkNonce compares the request's nonce with the first 32 bytes of the digest
// that was asked for (kbs-protocol 16.8).
func checkNonce(r *Report, want measure.Binding) measure.Check {
	if why, ok := want.Waived(); ok {
		return measure.Check{Name: measure.CheckBinding, Outcome: measure.Waived, Reason: why}
	}
	var t measure.Tally
	digest, ok := want.Value()
	data, err := measure.NewReportData(digest)
	switch {
	case !ok || len(digest) == 0:
		t.Fail(errors.New("nothing was given that the report could be bound to"))
	case err != nil:
		t.Fail(err)
	case !bytes.Equal(r.Nonce[:], data[:nonceSize]):
		t.Find("the report is not bound to this challenge and key", "nonce", hex.EncodeToString(r.Nonce[:]), hex.EncodeToString(data[:nonceSize]))
	}
	return t.Check(measure.CheckBinding)
}

// checkDevices counts the GPUs, and refuses to count one twice: the key in the
// second certificate is burnt into the chip.
func (v *Verifier) checkDevices(all []*examination) measure.Check {
	var t measure.Tally
	seen := map[string]int{}
	for i, a := range all {
		chip := string(a.chain[min(1, len(a.chain)-1)].RawSubjectPublicKeyInfo)
		if first, dup := seen[chip]; dup {
			t.Fail(fmt.Errorf("device %d is the same GPU as device %d", i, first))
		}
		seen[chip] = i
	}
	n := len(all)
	if !v.cfg.UnsafeAnyDevices && !slices.Contains(v.cfg.Devices, n) {
		var wanted []string
		for _, w := range v.cfg.Devices {
			wanted = append(wanted, strconv.Itoa(w))
		}
		t.Find("there are not as many GPUs as expected", "devices", strconv.Itoa(n), wanted...)
	}
	c := t.Check(CheckDevices)
	if c.Outcome == measure.Passed && v.cfg.UnsafeAnyDevices && !slices.Contains(v.cfg.Devices, n) {
		c.Outcome, c.Reason = measure.Waived, "any number of GPUs is accepted by configuration (UnsafeAnyDevices)"
	}
	return c
}
