// Package dcap is what Intel's quotes have in common, whichever TEE signed
// them: the PCK certificate chain, the quoting enclave's report, and the
// collateral that says what a platform's TCB is worth. Packages tdx and sgx
// build on it.
package dcap

import "context"

// TEE is the kind of enclave that a quote is about, in the spelling of the
// PCS's paths.
type TEE string

// The TEEs that have collateral.
const (
	TDX TEE = "tdx"
	SGX TEE = "sgx"
)

// CA names the authority that issued a PCK certificate.
type CA string

// The authorities (Intel SGX PCK Certificate and CRL Profile, section 1.3).
const (
	Processor CA = "processor"
	Platform  CA = "platform"
)

// Request names the collateral of one platform.
type Request struct {
	TEE   TEE
	FMSPC [6]byte // of the PCK certificate
	CA    CA      // that issued it
}

// Collateral is what Intel says about a kind of platform, as its PCS answers
// (API version 4). Everything in it is signed, so it may come from anywhere:
// who verifies checks signatures, dates and revocation.
type Collateral struct {
	TCBInfo         []byte // the JSON body, with its signature
	TCBInfoChain    []byte // PEM: signing certificate, root
	QEIdentity      []byte // the JSON body, with its signature
	QEIdentityChain []byte // PEM
	PCKCRL          []byte // DER
	PCKCRLChain     []byte // PEM: the CA, root
	RootCRL         []byte // DER
}

// A Source finds collateral. Package collateral implements it over the network,
// a cache, files and kits for machines without a network.
type Source interface {
	Collateral(ctx context.Context, r Request) (Collateral, error)
}
