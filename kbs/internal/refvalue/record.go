package refvalue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// maxSources bounds who may vouch for one name at a time.
const maxSources = 64

// stored is the record of one name: what each of its sources says.
type stored struct {
	Sources []source `json:"sources"`
}

// source is what one source says. Value is a byte slice, and so base64 in the
// record, because encoding/json would respace and escape raw JSON.
type source struct {
	Set       string    `json:"set,omitempty"`
	Signer    string    `json:"signer,omitempty"`
	Value     []byte    `json:"value"`
	NotBefore time.Time `json:"not_before,omitzero"`
	Expires   time.Time `json:"expires"`
	Owner     string    `json:"owner,omitempty"`
	Note      string    `json:"note,omitempty"`
	Author    string    `json:"author,omitempty"`
	Time      time.Time `json:"time"`
}

func (s source) inForce(now time.Time) bool {
	return !now.Before(s.NotBefore) && now.Before(s.Expires)
}

func decode(r store.Record) (stored, error) {
	var s stored
	if err := json.Unmarshal(r.Value, &s); err != nil {
		return s, fmt.Errorf("refvalue: the record of %s is damaged: %w", r.Key[len(prefixValue):], err)
	}
	return s, nil
}

// put replaces what one source says, or adds it.
func (s *stored) put(from source) error {
	i := slices.IndexFunc(s.Sources, func(o source) bool { return o.Set == from.Set })
	if i >= 0 {
		s.Sources[i] = from
		return nil
	}
	if len(s.Sources) == maxSources {
		return fmt.Errorf("%w: %d sources vouch for it already", ErrValue, maxSources)
	}
	s.Sources = append(s.Sources, from)
	return nil
}

// remove forgets what a set says, and reports whether it said anything.
func (s *stored) remove(set string) bool {
	n := len(s.Sources)
	s.Sources = slices.DeleteFunc(s.Sources, func(o source) bool { return o.Set == set })
	return len(s.Sources) < n
}

// merged is what policies see at a time, nil if nothing is in force. A single
// source is seen byte for byte.
func (s *stored) merged(now time.Time) json.RawMessage {
	var live []source
	for _, o := range s.Sources {
		if o.inForce(now) {
			live = append(live, o)
		}
	}
	if len(live) < 2 {
		if len(live) == 0 {
			return nil
		}
		return live[0].Value
	}
	newest := live[0]
	var all []json.RawMessage
	for _, o := range live {
		if o.Time.After(newest.Time) {
			newest = o
		}
		var list []json.RawMessage
		if raw := bytes.TrimLeft(o.Value, " \t\r\n"); len(raw) == 0 || raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
			all = nil
			break
		}
		all = append(all, list...)
	}
	if all == nil {
		for _, o := range live { // also those behind the one that is no list
			if o.Time.After(newest.Time) {
				newest = o
			}
		}
		return newest.Value
	}
	return joined(all)
}

// joined writes a list without repetitions, each item byte for byte.
func joined(items []json.RawMessage) json.RawMessage {
	seen := map[string]bool{}
	out := []byte{'['}
	for _, item := range items {
		if seen[string(item)] {
			continue
		}
		seen[string(item)] = true
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, item...)
	}
	return append(out, ']')
}

// describe is the record as administrators see it.
func (s *stored) describe(name string, version store.Version, now time.Time) api.RefValue {
	v := api.RefValue{Name: name, Version: int64(version), Value: s.merged(now)}
	v.InForce = v.Value != nil
	var newest source
	for _, o := range s.Sources {
		if !o.Time.Before(newest.Time) {
			newest = o
		}
		if o.Expires.After(v.Expires) {
			v.Expires = o.Expires
		}
		if o.Set == "" {
			v.Owner, v.Note, v.NotBefore = o.Owner, o.Note, o.NotBefore
		}
		v.Sources = append(v.Sources, api.RefSource{
			Set: o.Set, Signer: o.Signer, Value: o.Value, NotBefore: o.NotBefore, Expires: o.Expires,
			Author: o.Author, Time: o.Time, InForce: o.inForce(now),
		})
	}
	v.Author, v.Time = newest.Author, newest.Time
	if v.Value == nil {
		v.Value = newest.Value // what it was, or will be
	}
	return v
}
