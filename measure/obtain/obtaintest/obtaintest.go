// Package obtaintest makes machines of simulated guests: interfaces as Linux has
// them, by package tsmtest, and behind them the simulators, so that everything an
// attester obtains has the genuine form and verifies under the simulated vendor.
// It is for tests; no program links it.
package obtaintest

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/obtain"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

// Machine is one with this kernel and no TPM.
func Machine(k *tsmtest.Kernel) obtain.Machine {
	return obtain.Machine{Kernel: k, TPM: tpmdev.New(tpmdev.File("/nonexistent/tpmrm0"))}
}

// SNP is the kernel of a simulated SNP guest: configfs-tsm with the report and
// the host's certificate table.
func SNP(s *snp.Simulator) *tsmtest.Kernel {
	return &tsmtest.Kernel{Provider: tsm.ProviderSNP, Floor: new(uint8), Report: func(a tsmtest.Attributes) (tsmtest.Blobs, error) {
		ev, err := s.Evidence(context.Background(), measure.ReportData(a.InBlob))
		if err != nil {
			return tsmtest.Blobs{}, err
		}
		e, err := snp.ParseEvidence(ev)
		if err != nil {
			return tsmtest.Blobs{}, err
		}
		return tsmtest.Blobs{Out: e.Report.Marshal(), Aux: table(e.Certificates)}, nil
	}}
}

// tableGUIDs are those of the certificates in the host's table (GHCB
// specification, SNP extended guest request).
var tableGUIDs = map[snp.CertType]string{
	snp.CertVCEK: "63da758de6644564adc5f4b93be8accd",
	snp.CertVLEK: "a8074bc2a25a483eaae639c045a0b8a1",
	snp.CertASK:  "4ab7b379bbac4fe4a02f05aef327c782",
	snp.CertARK:  "c0b406a4a803495297433fb6014cd0ae",
}

func table(certs []snp.Certificate) []byte {
	const entry = 24
	head := make([]byte, entry*(len(certs)+1))
	var data []byte
	for i, c := range certs {
		at := head[i*entry:]
		if n, err := hex.Decode(at, []byte(tableGUIDs[c.Type])); err != nil || n != 16 {
			panic(fmt.Sprintf("a certificate of type %s", c.Type))
		}
		binary.LittleEndian.PutUint32(at[16:], uint32(len(head)+len(data))) //nolint:gosec // small
		binary.LittleEndian.PutUint32(at[20:], uint32(len(c.Data)))         //nolint:gosec // small
		data = append(data, c.Data...)
	}
	return append(head, data...)
}

// measurements is where Linux shows the registers of a TD.
const measurements = "sys/devices/virtual/misc/tdx_guest/measurements/"

// TDX is the kernel of a simulated TD: configfs-tsm, the registers, and the log
// of the firmware.
func TDX(s *tdx.Simulator) (*tsmtest.Kernel, error) {
	ask := func(data measure.ReportData) (*tdx.Evidence, error) {
		ev, err := s.Evidence(context.Background(), data)
		if err != nil {
			return nil, err
		}
		return tdx.ParseEvidence(ev)
	}
	boot, err := ask(measure.ReportData{})
	if err != nil {
		return nil, err
	}
	config := s.MRConfigID()
	k := &tsmtest.Kernel{
		Provider:  tsm.ProviderTDX,
		Files:     map[string][]byte{tdx.FirmwareLog: boot.EventLog, measurements + "mrconfigid": config[:]},
		Registers: map[string][]byte{},
		Report: func(a tsmtest.Attributes) (tsmtest.Blobs, error) {
			e, err := ask(measure.ReportData(a.InBlob))
			if err != nil {
				return tsmtest.Blobs{}, err
			}
			return tsmtest.Blobs{Out: e.Quote}, nil
		},
	}
	numbers := map[string]int{}
	for n, value := range s.Registers() {
		name := fmt.Sprintf("%srtmr%d:sha384", measurements, n)
		k.Registers[name], numbers[name] = value[:], n
	}
	k.Extended = func(name string, digest []byte) {
		if err := s.ExtendRegister(numbers[name], digest); err != nil {
			panic(err) // the kernel knows the size
		}
	}
	return k, nil
}
