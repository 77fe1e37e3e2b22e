package snp

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"sync"
)

// maxChains bounds the chains that a verifier remembers: one for each chip and
// firmware, some twenty kilobytes each with the table of its key.
const maxChains = 1024

// chainKey names a list of certificates as it came, together with what of the
// report decides which root it is judged under.
type chainKey struct {
	sum       [sha256.Size]byte
	processor [3]uint8 // family, model, stepping
}

// keyOf returns false for a report that does not name its processor: there the
// certificate decides.
func keyOf(raw json.RawMessage, r *Report) (chainKey, bool) {
	return chainKey{sum: sha256.Sum256(raw), processor: [3]uint8{r.CPUFamily, r.CPUModel, r.CPUStepping}}, r.Version >= 3
}

// chain is a list of certificates that was found good in all that neither the
// time nor the report decides: well formed, signed by a trusted root, the
// certificates of that root where it brought any, and go-sev-guest agreed. It
// does not change.
type chain struct {
	certificates []Certificate
	leaf         *leaf
	root         *root
	signer       *x509.Certificate // of the leaf: ASK or ASVK
}

// chains remembers good chains. A chip sends the same one with every piece of
// evidence, and RSA-4096 twice for each would double the work. Chains that
// were refused are not remembered, so a stranger cannot fill the memory.
type chains struct {
	mu    sync.Mutex
	known map[chainKey]chain
	order []chainKey // a ring: the oldest makes room
	next  int
}

func (c *chains) find(k chainKey) (chain, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.known[k]
	return found, ok
}

func (c *chains) remember(k chainKey, good chain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.known[k]; there {
		return
	}
	if c.known == nil {
		c.known = map[chainKey]chain{}
	}
	if len(c.order) < maxChains {
		c.order = append(c.order, k)
	} else {
		delete(c.known, c.order[c.next])
		c.order[c.next] = k
		c.next = (c.next + 1) % maxChains
	}
	c.known[k] = good
}
