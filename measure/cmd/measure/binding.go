package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// bindingFlags say what evidence must be bound to.
type bindingFlags struct {
	reportData, nonce, key, devices, initData string
	hash                                      *choice
	unbound, unboundInitData                  bool
	given                                     func(flag string) bool
}

func (f *bindingFlags) add(cmd *cobra.Command) {
	f.hash = oneOf("sha384", "sha256", "sha512")
	s := cmd.Flags()
	s.StringVar(&f.reportData, "report-data", "", "`HEX` that the evidence must be bound to, at most 64 bytes; zeros are added where the platform has a field of 64")
	s.StringVar(&f.nonce, "nonce", "", "`TEXT` whose bytes the evidence must be bound to; with --tee-pubkey the nonce of a broker's challenge")
	s.StringVar(&f.key, "tee-pubkey", "", "`FILE` with the guest's public key (JWK), which is hashed together with the nonce as the KBS protocol does")
	s.StringVar(&f.devices, "additional-evidence", "", "`FILE` with the evidence of devices that was hashed too, as it was sent (a newline at its end does not count)")
	s.Var(f.hash, "hash", "hash of nonce and key")
	s.BoolVar(&f.unbound, "allow-unbound", false, "waive the binding: accept evidence over any challenge")
	s.StringVar(&f.initData, "init-data", "", "`FILE` with the init-data document that the evidence must be bound to; without it the field is a claim, as for a guest that presents none")
	s.BoolVar(&f.unboundInitData, "allow-unbound-init-data", false, "waive the init-data binding: the guest presented a document that is not at hand")
	f.given = s.Changed
	cmd.MarkFlagsOneRequired("report-data", "nonce", "allow-unbound")
	cmd.MarkFlagsMutuallyExclusive("report-data", "nonce", "allow-unbound")
	cmd.MarkFlagsMutuallyExclusive("init-data", "allow-unbound-init-data")
}

// expected reads the flags for evidence of a CPU or of a device beside it.
func (c *cli) expected(f bindingFlags, device bool) (measure.Expected, error) {
	want := measure.Expected{
		ReportData: measure.UnsafeUnbound("waived by --allow-unbound"),
		InitData:   measure.NotPresented(),
	}
	if !f.unbound {
		digest, err := c.digest(f, device)
		if err != nil {
			return want, err
		}
		want.ReportData = measure.BoundTo(digest)
	}
	switch {
	case f.unboundInitData:
		want.InitData = measure.UnsafeUnbound("waived by --allow-unbound-init-data")
	case f.given("init-data"):
		if f.initData == "" { // a variable that is not set, not a waiver
			return want, errors.New("--init-data names no file")
		}
		doc, err := c.initData(f.initData)
		if err != nil {
			return want, err
		}
		want.InitData = measure.BoundTo(doc.Digest())
	}
	return want, nil
}

// digest is what the evidence must carry, before the platform's rule of fitting
// it into a field.
func (c *cli) digest(f bindingFlags, device bool) ([]byte, error) {
	switch {
	case f.nonce == "" && (f.key != "" || f.devices != ""):
		return nil, errors.New("--tee-pubkey and --additional-evidence go with --nonce")
	case f.nonce == "":
		return parseReportData(f.reportData)
	case f.key == "" && f.devices != "":
		return nil, errors.New("--additional-evidence goes with --tee-pubkey")
	case f.key == "":
		if len(f.nonce) > len(measure.ReportData{}) {
			return nil, fmt.Errorf("--nonce has %d bytes, and evidence holds %d; --tee-pubkey hashes it", len(f.nonce), len(measure.ReportData{}))
		}
		return []byte(f.nonce), nil
	}
	key, err := c.readFile(f.key)
	if err != nil {
		return nil, err
	}
	var devices []byte
	if f.devices != "" {
		if devices, err = c.readFile(f.devices); err != nil {
			return nil, err
		}
	}
	text, err := runtimeData(f.nonce, key)
	if err == nil && !device {
		text, err = withDevices(text, strings.TrimSuffix(string(devices), "\n"))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.key, err)
	}
	return sum(f.hash.value, text), nil
}

func sum(hash string, text []byte) []byte {
	switch hash {
	case "sha256":
		s := sha256.Sum256(text)
		return s[:]
	case "sha512":
		s := sha512.Sum512(text)
		return s[:]
	}
	s := sha512.Sum384(text)
	return s[:]
}

// runtimeData is the text that device and broker hash (kbs-protocol 3.5), in the
// form of RFC 8785: members sorted, no spaces, strings as short as they can be.
// Only ASCII is accepted, where that form and the standard library's agree;
// nonces and keys have nothing else.
func runtimeData(nonce string, key []byte) ([]byte, error) {
	members, err := strictjson.Members(key)
	if err != nil {
		return nil, fmt.Errorf("a JWK is wanted: %w", err)
	}
	text, err := canonical(nonce)
	if err != nil {
		return nil, err
	}
	text = fmt.Appendf(nil, `{"nonce":%s,"tee-pubkey":{`, text)
	for i, name := range slices.Sorted(maps.Keys(members)) {
		var value string
		if err := json.Unmarshal(members[name], &value); err != nil {
			return nil, fmt.Errorf("member %s of the key is no string", name)
		}
		k, errName := canonical(name)
		v, errValue := canonical(value)
		if err := errors.Join(errName, errValue); err != nil {
			return nil, err
		}
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, "%s:%s", k, v)
	}
	return append(text, "}}"...), nil
}

// withDevices makes the text of a CPU of that of a device: it vouches for the
// devices' evidence too, which is empty where there are none.
func withDevices(text []byte, evidence string) ([]byte, error) {
	e, err := canonical(evidence)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"additional-evidence":%s,%s`, e, text[1:]), nil
}

func canonical(text string) ([]byte, error) {
	for _, r := range text {
		if r > 0x7e {
			return nil, fmt.Errorf("%q has characters outside of ASCII", text)
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(text)
	return bytes.TrimSpace(b.Bytes()), err
}

func parseReportData(text string) ([]byte, error) {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("--report-data: %w", err)
	}
	if _, err := measure.NewReportData(raw); err != nil {
		return nil, fmt.Errorf("--report-data: %w", err)
	}
	return raw, nil
}
