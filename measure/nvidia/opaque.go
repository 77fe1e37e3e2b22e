package nvidia

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// FieldType is the type of a field of the opaque data, which the GPU signs
// together with its measurements.
type FieldType uint16

// The fields with a meaning here.
const (
	FieldDriver           FieldType = 3
	FieldVBIOS            FieldType = 6
	FieldNVDEC0           FieldType = 11
	FieldMeasurementCount FieldType = 12
	FieldFWID             FieldType = 20
	FieldFeature          FieldType = 36
)

// form is how a field is shown.
type form int

const (
	asHex form = iota
	asText
	asVBIOS
	asCounts
	asFeature
)

// opaqueFields are the fields under their claim names (kbs-protocol 16.8; those
// from 1 to 10 and 23 to 36 that are not there, after NVIDIA's own verifier).
var opaqueFields = map[FieldType]struct {
	name string
	form form
}{
	1: {"cert_issuer_name", asHex}, 2: {"cert_authority_key_identifier", asHex},
	FieldDriver: {"driver_version", asText}, 4: {"gpu_info", asHex}, 5: {"sku", asHex}, FieldVBIOS: {"vbios_version", asVBIOS},
	7: {"manufacturer_id", asHex}, 8: {"tamper_detection", asHex}, 9: {"smc", asHex}, 10: {"vpr", asHex},
	FieldNVDEC0: {"nvdec0_status", asText}, FieldMeasurementCount: {"measurement_count", asCounts}, 13: {"cpr_info", asHex},
	14: {"board_id", asHex}, 15: {"chip_sku", asText}, 16: {"chip_sku_mod", asText}, 17: {"project", asText},
	18: {"project_sku", asText}, 19: {"project_sku_mod", asHex}, FieldFWID: {"fwid", asHex},
	21: {"protected_pcie_status", asText}, 22: {"switch_pdi", asHex}, 23: {"floorswept_ports", asHex}, 24: {"position_id", asHex},
	25: {"lock_switch_status", asHex}, 32: {"gpu_link_conn", asHex}, 33: {"sys_enable_status", asHex}, 34: {"opaque_data_version", asHex},
	35: {"chip_info", asText}, FieldFeature: {"feature_flag", asFeature},
}

// parseOpaque reads the fields: type and length, each 16 bits, and the value. A
// type that comes twice is refused; one that is not known is kept.
func parseOpaque(raw []byte) (map[FieldType][]byte, error) {
	out := map[FieldType][]byte{}
	for r := (&reader{rest: raw}); len(r.rest) > 0; {
		kind := FieldType(r.u16())
		value := r.bytes(r.u16())
		if r.short {
			return nil, malformed("the opaque data ends within field %d", kind)
		}
		if _, dup := out[kind]; dup {
			return nil, malformed("field %d of the opaque data comes twice", kind)
		}
		out[kind] = value
	}
	for _, kind := range []FieldType{FieldDriver, FieldVBIOS} {
		if len(out[kind]) == 0 {
			return nil, malformed("the opaque data has no %s", opaqueFields[kind].name)
		}
	}
	if n := len(out[FieldVBIOS]); n%2 != 0 {
		return nil, malformed("a VBIOS version of %d bytes", n)
	}
	if n := len(out[FieldMeasurementCount]); n%4 != 0 {
		return nil, malformed("measurement counts of %d bytes", n)
	}
	return out, nil
}

// Driver returns the version of the driver.
func (r *Report) Driver() string { return text(r.Opaque[FieldDriver]) }

// VBIOS returns the version of the VBIOS, for example 96.00.9f.00.01.
func (r *Report) VBIOS() string { return vbios(r.Opaque[FieldVBIOS]) }

func (r *Report) release(c Component) string {
	if c == Driver {
		return r.Driver()
	}
	return r.VBIOS()
}

// nvdecDisabled is the status in which the GPU leaves out what is measured for
// its video decoder.
const nvdecDisabled = 0x55

func (r *Report) decoderDisabled() bool {
	b := r.Opaque[FieldNVDEC0]
	return len(b) == 1 && b[0] == nvdecDisabled
}

// config are the claims of the opaque data.
func (r *Report) config() measure.Claims {
	out := measure.Claims{}
	for kind, value := range r.Opaque {
		f, ok := opaqueFields[kind]
		if !ok {
			out["unknown_"+strconv.Itoa(int(kind))] = hex.EncodeToString(value)
			continue
		}
		switch f.form {
		case asHex:
			out[f.name] = hex.EncodeToString(value)
		case asText:
			out[f.name] = text(value)
		case asVBIOS:
			out[f.name] = vbios(value)
		case asCounts:
			out[f.name] = counts(value)
		case asFeature:
			out[f.name] = feature(value)
		}
	}
	return out
}

// text is what stands before the zeros, or hex where that is not printable.
func text(b []byte) string {
	s := strings.TrimRight(string(b), "\x00")
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return hex.EncodeToString(b)
		}
	}
	return s
}

// vbios writes the first half backwards and the first byte of the second.
func vbios(b []byte) string {
	half := len(b) / 2
	if half == 0 {
		return ""
	}
	var parts []string
	for i := half - 1; i >= 0; i-- {
		parts = append(parts, fmt.Sprintf("%02x", b[i]))
	}
	return strings.Join(append(parts, fmt.Sprintf("%02x", b[half])), ".")
}

// counts tells how often each measurement was extended.
func counts(b []byte) measure.Claims {
	out := measure.Claims{}
	for i := 0; i+4 <= len(b); i += 4 {
		out[strconv.Itoa(i/4+1)] = json.Number(strconv.FormatUint(uint64(binary.LittleEndian.Uint32(b[i:])), 10))
	}
	return out
}

// feature names the mode that the GPU runs in.
func feature(b []byte) string {
	var n uint64
	for i, c := range b {
		if i < 8 {
			n |= uint64(c) << (8 * i)
		}
	}
	switch n {
	case 0:
		return "SPT"
	case 1:
		return "MPT"
	case 2:
		return "PPCIE"
	}
	return hex.EncodeToString(b)
}
