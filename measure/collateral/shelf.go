package collateral

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// Shelf is collateral that lies ready in files. What it holds was found to be
// signed, but it does not look at dates: whoever uses it does. It does not
// change after it was read.
type Shelf struct {
	source
	items map[Name]shelved
	// Skipped tells of files that are no collateral, or none that is signed by
	// those who are trusted.
	Skipped []error
}

type shelved struct {
	item  Item
	facts facts
}

// Bounds of a directory.
const maxFiles = 1 << 16

// ReadFiles reads a directory and those below it. Names of files do not
// matter, what they are shows: certificates and revocation lists in PEM or DER
// as vendors publish them, TCB info and identities as Intel's service answers
// (with the certificate of their signer in another file), what Intel's
// PcsClientTool writes, and the files of a [Store]'s directory. Of several
// editions the newest counts. Files and directories whose names begin with a
// dot are left out.
func ReadFiles(dir string, trusted []*x509.Certificate) (*Shelf, error) {
	heap := heap{trust: trusted, pool: trusted}
	count := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch hidden := path != dir && strings.HasPrefix(d.Name(), "."); {
		case err != nil:
			return err
		case hidden && d.IsDir():
			return fs.SkipDir
		case hidden || d.IsDir():
			return nil
		}
		if i, err := os.Stat(path); err != nil || !i.Mode().IsRegular() { // a link may lead to a file
			return err
		}
		if count++; count > maxFiles {
			return fmt.Errorf("%s has more than %d files", dir, maxFiles)
		}
		raw, err := readBounded(path)
		if err != nil {
			return err
		}
		heap.add(path, raw)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("collateral: %w", err)
	}
	return heap.sort(), nil
}

// find returns an item, or an error that wraps ErrAbsent.
func (s *Shelf) find(_ context.Context, names ...Name) ([]Item, error) {
	items, errs := make([]Item, len(names)), make([]error, len(names))
	for i, n := range names {
		found, ok := s.items[n]
		if items[i] = found.item; !ok {
			errs[i] = fmt.Errorf("%s: %w among the files", n, ErrAbsent)
		}
	}
	return items, errors.Join(errs...)
}

// Items lists what it holds, by name.
func (s *Shelf) Items() []Item {
	out := make([]Item, 0, len(s.items))
	for _, i := range s.items {
		out = append(out, i.item)
	}
	slices.SortFunc(out, func(a, b Item) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// heap is what was found in files, not yet put together.
type heap struct {
	trust   authorities
	pool    []*x509.Certificate // that may be part of a chain
	certs   []found
	lists   []found
	papers  []found // Intel's documents, without their chain
	items   []Item  // whole
	skipped []error
}

// found is a thing and the file that had it.
type found struct {
	path string
	raw  []byte
}

func (h *heap) skip(path string, err error) {
	h.skipped = append(h.skipped, fmt.Errorf("%s: %w", path, err))
}

var errUnknown = errors.New("it is no collateral that is known")

// add finds out what a file is.
func (h *heap) add(path string, raw []byte) {
	var err error
	switch {
	case bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")):
		err = h.addJSON(path, raw)
	case bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN ")):
		err = h.addPEM(path, raw)
	default:
		err = h.addDER(path, raw)
	}
	if err != nil {
		h.skip(path, err)
	}
}

func (h *heap) addPEM(path string, raw []byte) error {
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != pemCertificate && block.Type != "X509 CRL" {
			return fmt.Errorf("a PEM block %q: %w", block.Type, errUnknown)
		}
		if err := h.addDER(path, block.Bytes); err != nil {
			return err
		}
	}
	return nil
}

func (h *heap) addDER(path string, der []byte) error {
	if c, err := x509.ParseCertificate(der); err == nil {
		h.certs = append(h.certs, found{path, der})
		h.pool = append(h.pool[:len(h.pool):len(h.pool)], c)
		return nil
	}
	if _, err := x509.ParseRevocationList(der); err != nil {
		return errUnknown
	}
	h.lists = append(h.lists, found{path, der})
	return nil
}

// sort makes items of the heap and keeps those that are signed.
func (h *heap) sort() *Shelf {
	for _, f := range h.certs {
		if i, ok := h.certificate(f.raw); ok {
			i.Source = f.path
			h.items = append(h.items, i)
		}
	}
	for _, f := range h.lists {
		all, err := h.list(f.raw)
		if err != nil {
			h.skip(f.path, err)
		}
		for _, i := range all {
			i.Source = f.path
			h.items = append(h.items, i)
		}
	}
	for _, f := range h.papers {
		i, err := h.paper(f.raw)
		if err != nil {
			h.skip(f.path, err)
			continue
		}
		i.Source = f.path
		h.items = append(h.items, i)
	}
	s := &Shelf{items: map[Name]shelved{}}
	s.source = source{s.find}
	for _, i := range h.items {
		f, err := h.trust.read(i)
		if err != nil {
			h.skip(i.Source, fmt.Errorf("%s: %w", i.Name, err))
			continue
		}
		if there, ok := s.items[i.Name]; !ok || there.facts.olderThan(f) {
			s.items[i.Name] = shelved{i, f}
		}
	}
	s.Skipped = h.skipped
	return s
}

// certificate makes an item of a certificate. Most of those in chains are none
// by themselves.
func (h *heap) certificate(der []byte) (Item, bool) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Item{}, false
	}
	key, line := snp.VCEK, strings.TrimPrefix(c.Subject.CommonName, "SEV-")
	if lent, ok := strings.CutPrefix(line, "VLEK-"); ok {
		key, line = snp.VLEK, lent
	}
	if g, err := snp.ParseGeneration(line); err == nil {
		return Item{Name: AMDChain(g, key), Body: h.chain(c)}, true
	}
	chip, err := snp.ReadVCEK(der)
	if err != nil {
		return Item{}, false
	}
	g, err := snp.ParseGeneration(strings.TrimPrefix(c.Issuer.CommonName, "SEV-"))
	if err != nil {
		return Item{}, false
	}
	return Item{Name: VCEK(g, chip.Chip, chip.SVNs.TCB(g)), Body: der}, true
}

// chain returns a certificate and the one that issued it, in PEM.
func (h *heap) chain(c *x509.Certificate) []byte {
	out := pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})
	for _, up := range h.pool {
		if bytes.Equal(up.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(up) == nil {
			return append(out, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: up.Raw})...)
		}
	}
	return out
}

// list makes items of a revocation list. AMD publishes one of a root in two
// places.
func (h *heap) list(der []byte) ([]Item, error) {
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	name := l.Issuer.CommonName
	if line, ok := strings.CutPrefix(name, "ARK-"); ok {
		g, err := snp.ParseGeneration(line)
		return []Item{{Name: AMDList(g, snp.VCEK), Body: der}, {Name: AMDList(g, snp.VLEK), Body: der}}, err
	}
	if name == nameIntelRoot {
		return []Item{{Name: RootCRL, Body: der}}, nil
	}
	ca, ok := pckAuthorities[name]
	if !ok {
		return nil, fmt.Errorf("a revocation list of %q: %w", name, errUnknown)
	}
	for _, c := range h.pool {
		if bytes.Equal(c.RawSubject, l.RawIssuer) && l.CheckSignatureFrom(c) == nil {
			return []Item{{Name: PCKCRL(ca), Body: der, Chain: h.chain(c)}}, nil
		}
	}
	return nil, fmt.Errorf("the certificate of %q, which signed this list, is not among the files", name)
}
