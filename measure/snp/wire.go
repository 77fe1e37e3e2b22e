package snp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// octets is a byte string as serde writes it: a list of numbers. The standard
// library would write base64, and would read a list of the wrong length into
// an array without a word.
type octets []byte

// MarshalJSON writes a list of numbers.
func (o octets) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 2+4*len(o))
	b = append(b, '[')
	for i, v := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(v), 10)
	}
	return append(b, ']'), nil
}

var errOctets = errors.New("not a list of numbers from 0 to 255")

// parseOctets reads a list of at most limit numbers from 0 to 255. The caller
// has cut raw out of valid JSON, so it need not look for malformed numbers;
// the json package would take several allocations for every byte.
func parseOctets(raw json.RawMessage, limit int) ([]byte, error) {
	if len(raw) == 0 {
		return nil, errors.New("missing")
	}
	if len(raw) < 2 || raw[0] != '[' || raw[len(raw)-1] != ']' {
		return nil, errOctets
	}
	inner := raw[1 : len(raw)-1]
	if len(bytes.TrimSpace(inner)) == 0 {
		return []byte{}, nil
	}
	n := bytes.Count(inner, []byte(",")) + 1
	if n > limit {
		return nil, fmt.Errorf("longer than %d bytes", limit)
	}
	out := make([]byte, 0, n)
	for number := range bytes.SplitSeq(inner, []byte(",")) {
		v := 0
		number = bytes.TrimSpace(number)
		for _, d := range number {
			if d < '0' || d > '9' || len(number) > 3 {
				return nil, errOctets
			}
			v = 10*v + int(d-'0')
		}
		if v > 255 || len(number) == 0 {
			return nil, errOctets
		}
		out = append(out, byte(v))
	}
	return out, nil
}

// object is one JSON object whose members are read by their exact names. It
// collects the first error, so that a reader can ask for one member after the
// other and look once.
type object struct {
	members map[string]json.RawMessage
	err     error
}

// parseObject reads exactly one object and nothing after it.
func parseObject(raw json.RawMessage) (*object, error) {
	members, err := strictjson.Members(raw)
	if err != nil {
		return nil, err
	}
	return &object{members: members}, nil
}

// inner reads an object that stands in another one.
func inner(raw json.RawMessage) (*object, error) {
	if raw == nil {
		return nil, errors.New("missing")
	}
	members, err := strictjson.Inner(raw)
	if err != nil {
		return nil, err
	}
	return &object{members: members}, nil
}

func (o *object) fail(name string, err error) {
	if o.err == nil && err != nil {
		o.err = fmt.Errorf("%s: %w", name, err)
	}
}

// number reads an unsigned integer of the given width without going through a
// float, so that all 64 bits survive.
func (o *object) number(name string, bits int) uint64 {
	raw, ok := o.members[name]
	if !ok {
		o.fail(name, errors.New("missing"))
		return 0
	}
	v, err := strconv.ParseUint(string(raw), 10, bits)
	if err != nil {
		o.fail(name, fmt.Errorf("not an unsigned integer of %d bits", bits))
	}
	return v
}

// option is number for a member that may be null or missing. Present tells
// which.
func (o *object) option(name string, bits int) (v uint64, present bool) {
	if raw, ok := o.members[name]; !ok || string(raw) == "null" {
		return 0, false
	}
	return o.number(name, bits), true
}

// octets reads a list of exactly len(field) numbers.
func (o *object) octets(name string, field []byte) {
	b, err := parseOctets(o.members[name], len(field))
	if err == nil && len(b) != len(field) {
		err = fmt.Errorf("%d bytes, want %d", len(b), len(field))
	}
	o.fail(name, err)
	copy(field, b)
}

func (o *object) object(name string) *object {
	p, err := inner(o.members[name])
	if err != nil {
		o.fail(name, err)
		return &object{}
	}
	return p
}

func (o *object) tcb(name string, turin bool) TCB {
	p := o.object(name)
	s := SVNs{
		Bootloader: uint8(p.number("bootloader", 8)), TEE: uint8(p.number("tee", 8)),
		SNP: uint8(p.number("snp", 8)), Microcode: uint8(p.number("microcode", 8)),
	}
	fmc, ok := p.option("fmc", 8)
	switch {
	case ok && turin:
		v := uint8(fmc)
		s.FMC = &v
	case ok && fmc != 0:
		p.fail("fmc", errors.New("exists on Turin only"))
	}
	o.fail(name, p.err)
	return s.join(turin)
}

func (o *object) version(name string) FirmwareVersion {
	p := o.object(name)
	v := FirmwareVersion{
		Major: uint8(p.number("major", 8)), Minor: uint8(p.number("minor", 8)), Build: uint8(p.number("build", 8)),
	}
	o.fail(name, p.err)
	return v
}

// sinceVersion reads a member that exists from a report version on. In older
// reports it must be absent, null or zero, since they have no place for it.
func (o *object) sinceVersion(name string, bits int, there bool) uint64 {
	if there && bits == 8 {
		return o.number(name, bits)
	}
	v, _ := o.option(name, bits)
	if !there && v != 0 {
		o.fail(name, errors.New("does not exist in this report version"))
	}
	return v
}

// report rebuilds the report from its members.
func (o *object) report() (*Report, error) {
	r := &Report{
		Version: uint32(o.number("version", 32)), GuestSVN: uint32(o.number("guest_svn", 32)),
		Policy: o.number("policy", 64), VMPL: uint32(o.number("vmpl", 32)),
		SignatureAlgorithm: uint32(o.number("sig_algo", 32)),
		PlatformInfo:       o.number("plat_info", 64), KeyInfo: uint32(o.number("key_info", 32)),
		Current: o.version("current"), Committed: o.version("committed"),
	}
	r.CPUFamily = uint8(o.sinceVersion("cpuid_fam_id", 8, r.Version >= 3))
	r.CPUModel = uint8(o.sinceVersion("cpuid_mod_id", 8, r.Version >= 3))
	r.CPUStepping = uint8(o.sinceVersion("cpuid_step", 8, r.Version >= 3))
	r.LaunchMitigations = o.sinceVersion("launch_mit_vector", 64, r.Version >= 5)
	r.CurrentMitigations = o.sinceVersion("current_mit_vector", 64, r.Version >= 5)
	o.octets("family_id", r.FamilyID[:])
	o.octets("image_id", r.ImageID[:])
	o.octets("report_data", r.ReportData[:])
	o.octets("measurement", r.Measurement[:])
	o.octets("host_data", r.HostData[:])
	o.octets("id_key_digest", r.IDKeyDigest[:])
	o.octets("author_key_digest", r.AuthorKeyDigest[:])
	o.octets("report_id", r.ReportID[:])
	o.octets("report_id_ma", r.ReportIDMA[:])
	o.octets("chip_id", r.ChipID[:])
	turin := r.turinLayout()
	r.CurrentTCB, r.ReportedTCB = o.tcb("current_tcb", turin), o.tcb("reported_tcb", turin)
	r.CommittedTCB, r.LaunchTCB = o.tcb("committed_tcb", turin), o.tcb("launch_tcb", turin)
	sig := o.object("signature")
	sig.octets("r", r.SignatureR[:])
	sig.octets("s", r.SignatureS[:])
	o.fail("signature", sig.err)
	if o.err != nil {
		return nil, o.err
	}
	return r, r.checkForm()
}
