package broker

import (
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
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

func openAzTDX(v config.Verifier, t tools) ([]measure.Verifier, error) {
	if !v.AzTDXvTPM.Enabled {
		return nil, nil
	}
	c, err := tdxConfig(v.AzTDXvTPM.TDX, t)
	if err != nil {
		return nil, err
	}
	hardware, err := tdx.NewVerifier(c)
	if err != nil {
		return nil, err
	}
	return only(azure.NewVerifier(hardware))
}
