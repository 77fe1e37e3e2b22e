package refvalue

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Tags of draft-ietf-rats-corim (sections 4 and 5) and of RFC 8949.
const (
	tagEpoch    = 1
	tagUUID     = 37
	tagOID      = 111
	tagOuter    = 500 // of early drafts, around everything
	tagUnsigned = 501
	tagSigned   = 502 // of early drafts, around the COSE message
	tagCoMID    = 506
	tagSVN      = 552
	tagMinSVN   = 553
	tagRaw      = 560
)

// corimMap is corim-map, as far as reference values go.
type corimMap struct {
	ID       cbor.RawMessage   `cbor:"0,keyasint"`
	Tags     []cbor.RawMessage `cbor:"1,keyasint"`
	Profile  cbor.RawMessage   `cbor:"3,keyasint,omitempty"`
	Validity *validity         `cbor:"4,keyasint,omitempty"`
}

type validity struct {
	NotBefore cbor.RawMessage `cbor:"0,keyasint,omitempty"`
	NotAfter  cbor.RawMessage `cbor:"1,keyasint"`
}

// comid is concise-mid-tag.
type comid struct {
	Identity tagIdentity `cbor:"1,keyasint"`
	Triples  triples     `cbor:"4,keyasint"`
}

type tagIdentity struct {
	ID cbor.RawMessage `cbor:"0,keyasint"`
}

// triples holds the reference triples. Endorsements and the other kinds say
// nothing about what evidence must show, and are skipped; under [Profile] an
// endorsement is the provenance.
type triples struct {
	Reference []referenceTriple `cbor:"0,keyasint,omitempty"`
	Endorsed  cbor.RawMessage   `cbor:"1,keyasint,omitempty"`
}

type referenceTriple struct {
	_            struct{} `cbor:",toarray"`
	Environment  environment
	Measurements []measurement
}

type environment struct {
	Class *class `cbor:"0,keyasint,omitempty"`
}

type class struct {
	Vendor string `cbor:"1,keyasint,omitempty"`
	Model  string `cbor:"2,keyasint,omitempty"`
}

type measurement struct {
	Key   cbor.RawMessage `cbor:"0,keyasint,omitempty"`
	Value measured        `cbor:"1,keyasint"`
}

// measured is measurement-values-map.
type measured struct {
	SVN     cbor.RawMessage `cbor:"1,keyasint,omitempty"`
	Digests []digest        `cbor:"2,keyasint,omitempty"`
	Raw     cbor.RawMessage `cbor:"4,keyasint,omitempty"`
	Serial  string          `cbor:"8,keyasint,omitempty"`
	Name    string          `cbor:"11,keyasint,omitempty"`
}

type digest struct {
	_     struct{} `cbor:",toarray"`
	Alg   cbor.RawMessage
	Value []byte
}

// decoder refuses what two readers could take for two things, and what only
// wants to be large.
var decoder = sync.OnceValue(func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxNestedLevels: 24, MaxArrayElements: MaxValues, MaxMapPairs: MaxValues,
	}.DecMode()
	if err != nil {
		panic(err) // constants
	}
	return mode
})

var encoder = sync.OnceValue(func() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // constants
	}
	return mode
})

func malformed(what string, err error) error { return fmt.Errorf("%w: %s: %w", ErrDocument, what, err) }

// CoRIM writes the document without a signature.
func (d Document) CoRIM() ([]byte, error) {
	d.Profile = Profile
	if err := d.validate(); err != nil {
		return nil, err
	}
	enc := encoder()
	must := func(v any) cbor.RawMessage {
		raw, err := enc.Marshal(v)
		if err != nil {
			panic(err) // texts, bytes and numbers
		}
		return raw
	}
	var ms []measurement
	for _, v := range d.Values {
		ms = append(ms, measurement{Value: measured{Name: v.Name, Raw: must(cbor.Tag{Number: tagRaw, Content: []byte(v.Value)})}})
	}
	all := triples{Reference: []referenceTriple{{Measurements: ms}}}
	if len(d.Provenance) > 0 {
		all.Endorsed = must([]referenceTriple{d.provenance(must)})
	}
	tag := must(comid{Identity: tagIdentity{ID: must(d.ID)}, Triples: all})
	m := corimMap{ID: must(d.ID), Tags: []cbor.RawMessage{must(cbor.Tag{Number: tagCoMID, Content: []byte(tag)})}, Profile: must(d.Profile)}
	if !d.NotAfter.IsZero() {
		m.Validity = &validity{NotAfter: must(cbor.Tag{Number: tagEpoch, Content: d.NotAfter.Unix()})}
		if !d.NotBefore.IsZero() {
			m.Validity.NotBefore = must(cbor.Tag{Number: tagEpoch, Content: d.NotBefore.Unix()})
		}
	}
	return enc.Marshal(cbor.Tag{Number: tagUnsigned, Content: must(m)})
}

// parse reads tagged-unsigned-corim-map.
func parse(raw []byte) (Document, error) {
	inner, ok := untag(raw, tagUnsigned)
	if !ok {
		return Document{}, fmt.Errorf("%w: not a CoRIM (tag %d)", ErrDocument, tagUnsigned)
	}
	var m corimMap
	if err := decoder().Unmarshal(inner, &m); err != nil {
		return Document{}, malformed("corim-map", err)
	}
	d := Document{ID: text(m.ID), Profile: text(m.Profile)}
	if m.Validity != nil {
		var err error
		if d.NotAfter, err = epoch(m.Validity.NotAfter); err != nil {
			return d, malformed("not-after", err)
		}
		if len(m.Validity.NotBefore) > 0 {
			if d.NotBefore, err = epoch(m.Validity.NotBefore); err != nil {
				return d, malformed("not-before", err)
			}
		}
	}
	r := values{Document: &d, digests: map[string][]string{}}
	for i, t := range m.Tags {
		body, ok := untag(t, tagCoMID)
		if !ok {
			continue // CoSWID and trust lists hold no reference triples
		}
		if err := r.read(body); err != nil {
			return d, fmt.Errorf("tag %d: %w", i, err)
		}
	}
	r.putDigests()
	return d, d.validate()
}

// values collects the reference values of a document.
type values struct {
	*Document

	measurements int // how many were read
	// digests are in hex, by the name of the value that lists them: a document may
	// give those of one name in as many places as it likes.
	digests map[string][]string
}

// read adds the reference values of one CoMID, which travels as bytes.
func (d *values) read(wrapped []byte) error {
	var raw []byte
	if err := decoder().Unmarshal(wrapped, &raw); err != nil {
		return malformed("concise-mid-tag", err)
	}
	var c comid
	if err := decoder().Unmarshal(raw, &c); err != nil {
		return malformed("concise-mid-tag", err)
	}
	if err := d.readProvenance(c.Triples.Endorsed); err != nil {
		return err
	}
	for _, t := range c.Triples.Reference {
		for _, m := range t.Measurements {
			if err := d.add(t.Environment, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// sha256Alg is SHA-256 in the registry of named information algorithms.
const sha256Alg = 1

// provenance is an endorsement that holds the digests of the sources.
func (d Document) provenance(must func(any) cbor.RawMessage) referenceTriple {
	t := referenceTriple{Environment: environment{Class: &class{Model: d.ID}}}
	for _, p := range d.Provenance {
		t.Measurements = append(t.Measurements, measurement{Value: measured{Name: p.Name, Digests: []digest{{Alg: must(sha256Alg), Value: p.SHA256}}}})
	}
	return t
}

// readProvenance reads it back. Other makers' endorsements mean something else.
func (d *Document) readProvenance(raw []byte) error {
	if d.Profile != Profile || len(raw) == 0 {
		return nil
	}
	var all []referenceTriple
	if err := decoder().Unmarshal(raw, &all); err != nil {
		return malformed("provenance", err)
	}
	for _, t := range all {
		for _, m := range t.Measurements {
			if len(m.Value.Digests) != 1 || text(m.Value.Digests[0].Alg) != fmt.Sprint(sha256Alg) {
				return fmt.Errorf("%w: the provenance has something other than SHA-256 digests", ErrDocument)
			}
			d.Provenance = append(d.Provenance, Source{m.Value.Name, m.Value.Digests[0].Value})
		}
	}
	return nil
}

func (d *values) add(env environment, m measurement) error {
	if d.measurements++; d.measurements > MaxValues {
		return fmt.Errorf("%w: more than %d measurements", ErrDocument, MaxValues)
	}
	if d.Profile == Profile {
		raw, err := rawValue(m.Value.Raw)
		if err != nil {
			return malformed("raw-value of "+clip(m.Value.Name), err)
		}
		d.Values = append(d.Values, Value{m.Value.Name, raw})
		return nil
	}
	name := fieldName(env, m)
	if len(m.Value.Digests) > 0 {
		for _, g := range m.Value.Digests {
			d.digests[name+"/digests"] = append(d.digests[name+"/digests"], hex.EncodeToString(g.Value))
		}
	}
	if len(m.Value.Raw) > 0 {
		raw, err := rawValue(m.Value.Raw)
		if err != nil {
			return malformed("raw-value of "+clip(name), err)
		}
		d.put(name+"/raw_bytes", hex.EncodeToString(raw))
	}
	if len(m.Value.SVN) > 0 {
		n, err := svn(m.Value.SVN)
		if err != nil {
			return malformed("svn of "+clip(name), err)
		}
		d.put(name+"/svn", n)
	}
	return nil
}

func (d *Document) put(name string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts and numbers
	}
	d.Values = append(d.Values, Value{name, raw})
}

// putDigests lists the digests of each name. What several measurements give under
// one name is one list: each of them is good.
func (d *values) putDigests() {
	for _, name := range slices.Sorted(maps.Keys(d.digests)) {
		all := d.digests[name]
		slices.Sort(all)
		d.put(name, slices.Compact(all))
	}
}

// fieldName joins what names a measurement, as the field does: vendor, model,
// mkey, the value's own name and the serial number, where they are there.
func fieldName(env environment, m measurement) string {
	var parts []string
	if env.Class != nil {
		parts = append(parts, env.Class.Vendor, env.Class.Model)
	}
	parts = append(parts, text(m.Key), m.Value.Name, m.Value.Serial)
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return strings.Map(func(r rune) rune {
		if r == ' ' {
			return '_' // names have none; vendors do
		}
		return r
	}, strings.Join(parts, "/"))
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// untag returns the content of a tag of the given number.
func untag(raw []byte, number uint64) ([]byte, bool) {
	var t cbor.RawTag
	if err := decoder().Unmarshal(raw, &t); err != nil || t.Number != number {
		return nil, false
	}
	return t.Content, true
}

// text reads an identifier: text, a number, a UUID, an OID or a URI, the last
// three under their tags.
func text(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	var s string
	if decoder().Unmarshal(raw, &s) == nil {
		return s
	}
	var n uint64
	if decoder().Unmarshal(raw, &n) == nil {
		return fmt.Sprint(n)
	}
	var t cbor.RawTag
	if decoder().Unmarshal(raw, &t) != nil {
		return ""
	}
	if decoder().Unmarshal(t.Content, &s) == nil {
		return s
	}
	var b []byte
	if decoder().Unmarshal(t.Content, &b) == nil && (t.Number == tagUUID || t.Number == tagOID) {
		return hex.EncodeToString(b)
	}
	return ""
}

// epoch reads a time: seconds since 1970, under tag 1.
func epoch(raw []byte) (time.Time, error) {
	content, ok := untag(raw, tagEpoch)
	if !ok {
		return time.Time{}, fmt.Errorf("not a time of tag %d", tagEpoch)
	}
	var s int64
	if err := decoder().Unmarshal(content, &s); err != nil {
		return time.Time{}, err
	}
	return time.Unix(s, 0).UTC(), nil
}

// rawValue reads bytes, with or without their tag.
func rawValue(raw []byte) ([]byte, error) {
	if content, ok := untag(raw, tagRaw); ok {
		raw = content
	}
	var b []byte
	err := decoder().Unmarshal(raw, &b)
	return b, err
}

// svn reads a security version number, exact or the least.
func svn(raw []byte) (uint64, error) {
	for _, number := range []uint64{tagSVN, tagMinSVN} {
		if content, ok := untag(raw, number); ok {
			raw = content
		}
	}
	var n uint64
	err := decoder().Unmarshal(raw, &n)
	return n, err
}
