package resource

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// record is what the store has under a resource's path:
//
//	format   1 byte, 1
//	head     4 bytes of length, JSON; see head
//	tag      28 bytes, dataKey.sealHead under the current value's key
//	keys     1 byte of count, then for each value that is kept, in ascending
//	         order: 8 bytes of version, 2 bytes of length, the wrapped data key
//
// The wrapped keys are not under the tag: each is bound by itself, and moving
// them to another master key must not look like a change.
type record struct {
	text []byte // the head's JSON
	tag  []byte
	keys []wrappedKey
}

type wrappedKey struct {
	version int64
	wrapped []byte
}

const (
	recordFormat = 1
	maxHead      = 512 << 10 // bytes
	maxKeys      = 255
)

func (r record) marshal() []byte {
	out := append(make([]byte, 0, 256+len(r.text)), recordFormat)
	out = binary.BigEndian.AppendUint32(out, uint32(len(r.text)))
	out = append(append(out, r.text...), r.tag...)
	out = append(out, byte(len(r.keys)))
	for _, k := range r.keys {
		out = binary.BigEndian.AppendUint64(out, uint64(k.version))
		out = binary.BigEndian.AppendUint16(out, uint16(len(k.wrapped)))
		out = append(out, k.wrapped...)
	}
	return out
}

// parseRecord accepts exactly what marshal writes. The parts alias b.
func parseRecord(b []byte) (record, error) {
	p := parser{rest: b}
	format := p.take(1)
	n := p.uint(4)
	if p.bad || format[0] != recordFormat || n > maxHead {
		return record{}, errRecord
	}
	r := record{text: p.take(int(n)), tag: p.take(sizeTag)}
	last := int64(-1)
	for range p.uint(1) {
		k := wrappedKey{version: int64(p.uint(8))}
		k.wrapped = p.take(int(p.uint(2)))
		if p.bad || k.version <= last {
			return record{}, errRecord
		}
		last = k.version
		r.keys = append(r.keys, k)
	}
	if p.bad || len(p.rest) > 0 {
		return record{}, errRecord
	}
	return r, nil
}

var errRecord = fmt.Errorf("%w: its record is damaged", ErrSealed)

type parser struct {
	rest []byte
	bad  bool
}

func (p *parser) take(n int) []byte {
	if n > len(p.rest) {
		p.bad = true
		return make([]byte, min(n, 8))
	}
	out := p.rest[:n:n]
	p.rest = p.rest[n:]
	return out
}

func (p *parser) uint(n int) uint64 {
	var v uint64
	for _, b := range p.take(n) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (r record) key(version int64) ([]byte, bool) {
	i, ok := slices.BinarySearchFunc(r.keys, version, func(k wrappedKey, v int64) int {
		return int(min(max(k.version-v, -1), 1))
	})
	if !ok {
		return nil, false
	}
	return r.keys[i].wrapped, true
}

// head is a resource's description. The last of its versions is the current
// one.
type head struct {
	Version  int64            `json:"version"`
	Created  time.Time        `json:"created"`
	Modified time.Time        `json:"modified"`
	Author   string           `json:"author,omitempty"`
	Meta     api.ResourceMeta `json:"meta"`
	Versions []version        `json:"versions"`
}

// version is one value, oldest first in a head.
type version api.ResourceVersion

// description is what the seal of a value binds beside its version.
func (v version) description() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(v.Size))
	b = binary.BigEndian.AppendUint64(b, uint64(v.Time.UnixMicro()))
	b = binary.BigEndian.AppendUint64(b, uint64(v.CopyOf))
	return append(b, v.Author...)
}

func (r record) parseHead() (head, error) {
	var h head
	if err := json.Unmarshal(r.text, &h); err != nil || len(h.Versions) == 0 {
		return head{}, errRecord
	}
	return h, nil
}

func (h head) current() version { return h.Versions[len(h.Versions)-1] }

// find returns a version that is kept, the current one for 0.
func (h head) find(n int64) (version, bool) {
	if n == 0 {
		return h.current(), true
	}
	i := slices.IndexFunc(h.Versions, func(v version) bool { return v.Version == n && v.Destroyed.IsZero() })
	if i < 0 {
		return version{}, false
	}
	return h.Versions[i], true
}

func (h head) info(path string) api.ResourceInfo {
	v := h.current()
	return api.ResourceInfo{
		Path: path, Version: h.Version, Value: v.Version, Size: v.Size, Author: h.Author,
		Time: h.Modified, Created: h.Created, ResourceMeta: h.Meta,
	}
}

// full is info with all versions.
func (h head) full(path string) api.ResourceInfo {
	r := h.info(path)
	for _, v := range slices.Backward(h.Versions) {
		r.Versions = append(r.Versions, api.ResourceVersion(v))
	}
	return r
}
