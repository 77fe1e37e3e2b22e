package dcap

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// chain is a PCK certificate chain, as a quote brings it, with what was found
// out about it. Dates are left out: they are checked whenever it is used.
type chain struct {
	pck   *PCK
	key   *ecdsa.PublicKey // of the PCK
	ca    *x509.Certificate
	end   *x509.Certificate // the root that came along, which proves nothing
	root  *root             // nil if end is not the key of a trusted root
	wrong []error           // why it does not lead to root
}

// readChain parses a quote's certificates, leaf first.
func readChain(pem []byte, roots []*root) (*chain, error) {
	certs, err := parsePEM(pem, 3)
	if err != nil {
		return nil, fmt.Errorf("the PCK certificate chain: %w", err)
	}
	c := &chain{ca: certs[1], end: certs[2]}
	if c.pck, err = ParsePCK(certs[0]); err != nil {
		return nil, fmt.Errorf("the PCK certificate: %w", err)
	}
	if c.key, err = p256(certs[0]); err != nil {
		return nil, err
	}
	for _, r := range roots {
		if r.key.Equal(c.end.PublicKey) {
			c.root = r
		}
	}
	if c.root != nil {
		c.wrong = c.follow()
	}
	return c, nil
}

// follow returns what is wrong on the way to the root.
func (c *chain) follow() []error {
	var wrong []error
	// The root in the quote may be an older certificate of the same key.
	for _, err := range []error{
		issued(c.end, c.root.cert), issued(c.ca, c.root.cert), issued(c.pck.Certificate, c.ca),
	} {
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	if c.pck.Certificate.IsCA {
		wrong = append(wrong, errors.New("the PCK certificate is that of an authority"))
	}
	return wrong
}

// sound reports whether it leads to a trusted root, so that what the PCK
// certificate says is true.
func (c *chain) sound() bool { return c.root != nil && len(c.wrong) == 0 }

// check reports whether the chain leads to its root.
func (c *chain) check(roots []*root, t *measure.Tally) {
	if c.root == nil {
		names := make([]string, len(roots))
		for i, r := range roots {
			names[i] = r.name
		}
		t.Find("the chain does not end in a trusted root", measure.FieldRoot,
			fmt.Sprintf("%s, SHA-256 %x", c.end.Subject, sha256.Sum256(c.end.Raw)), names...)
		return
	}
	for _, err := range c.wrong {
		t.Fail(err)
	}
}

// Request names the collateral of the platform that a quote says it is from.
// Nothing of it is verified.
func (q *Quote) Request() (Request, error) {
	c, err := readChain(q.Chain, nil)
	if err != nil {
		return Request{}, err
	}
	tee := TDX
	if q.Header.TEEType == teeTypeSGX {
		tee = SGX
	}
	return Request{TEE: tee, FMSPC: c.pck.FMSPC, CA: c.pck.CA}, nil
}

func (c *chain) certificates() []*x509.Certificate {
	out := []*x509.Certificate{c.pck.Certificate, c.ca}
	if c.root != nil {
		out = append(out, c.root.cert)
	}
	return out
}

// checkDates reports every certificate that is not valid at a time.
func checkDates(t *measure.Tally, now time.Time, certs ...*x509.Certificate) {
	for _, c := range certs {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			t.Find(fmt.Sprintf("the certificate %s is not valid at this time", c.Subject.CommonName), "time", now.UTC().Format(time.RFC3339),
				fmt.Sprintf("%s to %s", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
}
