package predict

import (
	"encoding/hex"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// Platforms of which nothing is predicted but where the digest of the init-data
// is found.
const (
	SGX       = Platform(measure.SGX)
	CCA       = Platform(measure.CCA)
	AzSNPvTPM = Platform(measure.AzSNPvTPM)
	AzTDXvTPM = Platform(measure.AzTDXvTPM)
)

// Bound lists them.
func Bound() []Platform { return []Platform{SGX, CCA, AzSNPvTPM, AzTDXvTPM} }

// fields are those of evidence that hold the digest, cut or filled up to their
// width in bytes (kbs-protocol 9.4).
var fields = map[Platform]struct {
	name  string
	width int
}{
	SNP: {"host_data", initdata.SNPHostData},
	TDX: {"mr_config_id", 48},
	SGX: {"config_id", 64},
	CCA: {"realm_personalization_value", 64},
}

// initData adds what the init-data document leads to.
func (m *material) initData() { m.doc.bind(m.InitData, m.Platforms) }

// bind says where the digest of an init-data document is found in the evidence
// of each platform.
func (d *Document) bind(doc *initdata.Document, platforms []Platform) {
	if doc == nil {
		return
	}
	digest := doc.Digest()
	d.Inputs.InitData = &InitData{Algorithm: doc.Algorithm(), Digest: hex.EncodeToString(digest)}
	for _, p := range platforms {
		v := Value{Platform: p, DependsOn: []string{string(boot.InitData)}}
		field, ok := fields[p]
		switch {
		case ok:
			v.Register, v.Value = field.name, hex.EncodeToString(initdata.Fit(digest, field.width))
		case !slices.Contains([]Platform{TPM, AzSNPvTPM, AzTDXvTPM}, p):
			d.unknown(p, "init-data", nil, "evidence of this platform has no field for it")
			continue
		case len(digest) != eventlog.SHA256.Size():
			d.unknown(p, pcrName(boot.InitDataPCR), nil, "the PCR takes a digest of 32 bytes: use sha256 in the init-data")
			continue
		default:
			value := eventlog.Extend(eventlog.SHA256, eventlog.Initial(boot.InitDataPCR, eventlog.SHA256), digest)
			v.Register, v.Bank, v.Value = pcrName(boot.InitDataPCR), bankName(eventlog.SHA256), hex.EncodeToString(value)
		}
		if !slices.ContainsFunc(d.of(p, registerName(v)), func(o Value) bool { return o.Value == v.Value }) {
			d.add(v)
		}
	}
}

// registerName is the name by which registers are compared: that of a PCR has
// its bank behind a slash.
func registerName(v Value) string {
	if v.Bank == "" {
		return v.Register
	}
	return v.Register + "/" + v.Bank
}
