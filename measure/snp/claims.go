package snp

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// ClaimSimulatedRoot is the claim that names the root of simulated evidence.
// It is absent under AMD's roots.
const ClaimSimulatedRoot = "simulated_root"

// claims are those of the report, with what the certificates add.
func (a *examination) claims() measure.Claims {
	c := a.report.Claims()
	c["processor"] = string(a.generation)
	if a.root != nil && a.root.simulated {
		c[ClaimSimulatedRoot] = a.root.name
	}
	if a.leaf != nil && a.leaf.kind == VLEK {
		c["csp_id"] = a.leaf.csp
	}
	return c
}

// Claims returns what the report claims, whether or not it is true: the claims
// of kbs-protocol 16.2 under their names there, and all else under names of
// our own. Numbers are numbers, bytes are lower-case hex, and so are bit
// vectors of 64 bits, which a JSON number does not hold everywhere.
func (r *Report) Claims() measure.Claims {
	generation, _ := r.Generation() // empty where the report does not tell
	c := measure.Claims{
		"measurement": hex.EncodeToString(r.Measurement[:]),
		"report_data": hex.EncodeToString(r.ReportData[:]),
		"init_data":   hex.EncodeToString(r.HostData[:]),
		"chip_id":     hex.EncodeToString(r.ChipID[:]),

		// Ours.
		"report_version":      number(r.Version),
		"vmpl":                number(r.VMPL),
		"guest_svn":           number(r.GuestSVN),
		"family_id":           hex.EncodeToString(r.FamilyID[:]),
		"image_id":            hex.EncodeToString(r.ImageID[:]),
		"id_key_digest":       hex.EncodeToString(r.IDKeyDigest[:]),
		"author_key_digest":   hex.EncodeToString(r.AuthorKeyDigest[:]),
		"author_key_enabled":  r.authorKeyEnabled(),
		"signing_key":         r.SigningKey().String(),
		"chip_id_masked":      r.chipMasked(),
		"report_id":           hex.EncodeToString(r.ReportID[:]),
		"report_id_ma":        hex.EncodeToString(r.ReportIDMA[:]),
		"current_firmware":    r.Current.String(),
		"committed_firmware":  r.Committed.String(),
		"launch_mit_vector":   fmt.Sprintf("%016x", r.LaunchMitigations),
		"current_mit_vector":  fmt.Sprintf("%016x", r.CurrentMitigations),
		"processor":           string(generation),
		"processor_cpuid_fms": hex.EncodeToString([]byte{r.CPUFamily, r.CPUModel, r.CPUStepping}),
	}
	policyClaims(c, r.Policy)
	platformClaims(c, r.PlatformInfo)
	turin := r.turinLayout()
	tcbClaims(c, "reported_tcb", r.ReportedTCB.split(turin))
	tcbClaims(c, "current_tcb", r.CurrentTCB.split(turin))
	tcbClaims(c, "committed_tcb", r.CommittedTCB.split(turin))
	tcbClaims(c, "launch_tcb", r.LaunchTCB.split(turin))
	return c
}

// policyClaims spells out the guest policy. Bits 16, 18, 19 and 20 are claims
// of the field, those from 21 on are ours.
func policyClaims(c measure.Claims, p uint64) {
	c["policy_abi_minor"] = number(p & 0xff)
	c["policy_abi_major"] = number(p >> 8 & 0xff)
	for bit, name := range map[uint]string{
		16: "policy_smt_allowed",
		18: "policy_migrate_ma",
		19: "policy_debug_allowed",
		20: "policy_single_socket",
		21: "policy_cxl_allowed",
		22: "policy_aes_256_xts_required",
		23: "policy_rapl_disable_required",
		24: "policy_ciphertext_hiding_required",
		25: "policy_page_swap_disable_required",
	} {
		c[name] = p>>bit&1 != 0
	}
}

// platformClaims spells out PLATFORM_INFO. Bits 0 and 1 are claims of the
// field.
func platformClaims(c measure.Claims, p uint64) {
	for bit, name := range map[uint]string{
		0: "platform_smt_enabled",
		1: "platform_tsme_enabled",
		2: "platform_ecc_enabled",
		3: "platform_rapl_disabled",
		4: "platform_ciphertext_hiding_enabled",
		5: "platform_alias_check_complete",
		7: "platform_tio_enabled",
	} {
		c[name] = p>>bit&1 != 0
	}
}

func tcbClaims(c measure.Claims, prefix string, s SVNs) {
	c[prefix+"_bootloader"] = number(s.Bootloader)
	c[prefix+"_tee"] = number(s.TEE)
	c[prefix+"_snp"] = number(s.SNP)
	c[prefix+"_microcode"] = number(s.Microcode)
	if s.FMC != nil {
		c[prefix+"_fmc"] = number(*s.FMC)
	}
}

func number[T uint8 | uint32 | uint64](n T) json.Number {
	return json.Number(strconv.FormatUint(uint64(n), 10))
}

// String returns for example "1.55.40".
func (v FirmwareVersion) String() string {
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Build)
}
