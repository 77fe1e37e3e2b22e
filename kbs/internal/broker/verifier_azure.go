package broker

import (
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
)

func openAzSNP(v config.Verifier, t tools) ([]measure.Verifier, error) {
	if !v.AzSNPvTPM.Enabled {
		return nil, nil
	}
	hardware, err := snpVerifier(v.AzSNPvTPM.SNP, t)
	if err != nil {
		return nil, err
	}
	return only(azure.NewVerifier(hardware))
}
