package predict

import (
	"encoding/hex"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// initData adds what the init-data document leads to.
func (m *material) initData() { m.doc.bind(m.InitData, m.Platforms) }

// bind says where the digest of an init-data document is found in the evidence
// of each platform (kbs-protocol 9.4). The PCR of a TPM is among the others.
func (d *Document) bind(doc *initdata.Document, platforms []Platform) {
	if doc == nil {
		return
	}
	digest := doc.Digest()
	d.Inputs.InitData = &InitData{Algorithm: doc.Algorithm(), Digest: hex.EncodeToString(digest)}
	for _, p := range platforms {
		v := Value{Platform: p, DependsOn: []string{string(boot.InitData)}}
		switch p {
		case SNP:
			v.Register, v.Value = "host_data", hex.EncodeToString(initdata.Fit(digest, initdata.SNPHostData))
		case TDX:
			const width = 48
			v.Register, v.Value = "mr_config_id", hex.EncodeToString(initdata.Fit(digest, width))
		case TPM:
			if len(digest) != eventlog.SHA256.Size() {
				continue // the reason is among the registers
			}
			value := eventlog.Extend(eventlog.SHA256, eventlog.Initial(8, eventlog.SHA256), digest)
			v.Register, v.Bank, v.Value = pcrName(8), bankName(eventlog.SHA256), hex.EncodeToString(value)
		default:
			d.unknown(p, "init-data", nil, "evidence of this platform has no field for it")
			continue
		}
		d.add(v)
	}
}
