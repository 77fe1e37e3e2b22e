package eventlog

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// ClaimEvents is the claim under which verifiers put [Log.ClaimsIn].
const ClaimEvents = "uefi_event_logs"

// MaxUnproven is the size in bytes up to which verdicts list the events of a log
// whoever sent it. Texts, JSON and device paths are taken apart for that, which
// costs many times what replaying the log does; so a larger one is listed only if
// nothing is wrong with the evidence.
const MaxUnproven = 64 << 10

// Claims returns the events in the form that policies of the field read
// (kbs-protocol 17): a list of objects with index, type_name, digests, event,
// digest_matches_event and details. It shows all that the log says, whether or
// not anything vouches for it.
func (l *Log) Claims() []any {
	out := make([]any, len(l.Events))
	for i, e := range l.Events {
		out[i] = e.claims()
	}
	return out
}

// ClaimsIn is the same for a log that was replayed in one bank: only digests of
// that bank are shown, and none of an EV_NO_ACTION, which extends nothing.
// Whoever sends a log chooses all others, and a policy that looks for a digest
// does not ask in which bank it is.
func (l *Log) ClaimsIn(bank Algorithm) []any {
	replayed := &Log{Events: make([]Event, len(l.Events))}
	for i, e := range l.Events {
		digest, ok := e.Digests[bank]
		e.Digests = map[Algorithm][]byte{}
		if ok && e.Type != NoAction {
			e.Digests[bank] = digest
		}
		replayed.Events[i] = e
	}
	return replayed.Claims()
}

func (e Event) claims() measure.Claims {
	digests := make([]any, 0, len(e.Digests))
	matches := len(e.Digests) > 0
	for _, a := range slices.Sorted(maps.Keys(e.Digests)) {
		digests = append(digests, measure.Claims{"alg": a.String(), "digest": hex.EncodeToString(e.Digests[a])})
		matches = matches && e.DigestMatches(a)
	}
	return measure.Claims{
		"index":                json.Number(strconv.Itoa(e.Index)),
		"type_name":            e.Type.String(),
		"digests":              digests,
		"event":                base64.StdEncoding.EncodeToString(e.Data),
		"digest_matches_event": matches,
		"details":              e.details(),
	}
}

func (e Event) details() measure.Claims {
	c := measure.Claims{}
	if text, ok := e.Text(); ok {
		c["string"] = text
	}
	if r, ok := e.Runtime(); ok {
		c["unicode_name"] = "AAEL"
		c["data"] = measure.Claims{"domain": r.Domain, "operation": r.Operation, "content": r.content()}
	}
	if v, ok := e.Variable(); ok {
		c["unicode_name"] = v.Name
		c["unicode_name_length"] = json.Number(strconv.Itoa(len([]rune(v.Name))))
		g := v.GUID
		c["variable_name"] = fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])
		c["variable_data"] = base64.StdEncoding.EncodeToString(v.Data)
		c["variable_data_length"] = json.Number(strconv.Itoa(len(v.Data)))
	}
	if e.Type == EFIBootServicesApplication {
		if paths := e.DevicePaths(); paths != nil {
			list := make([]any, len(paths))
			for i, p := range paths {
				list[i] = p
			}
			c["device_paths"] = list
		}
	}
	return c
}

// content is the event's content as JSON where it is JSON, else as text.
// Numbers keep their digits.
func (r RuntimeEvent) content() any {
	v, err := decodeJSON(r.Content)
	if err != nil {
		return r.Content
	}
	return v
}

// maxContentDepth bounds the nesting of JSON in an event, which policies walk.
const maxContentDepth = 32

func decodeJSON(text string) (any, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the value")
	}
	if depth(v) > maxContentDepth {
		return nil, errors.New("nested too deeply")
	}
	return v, nil
}

func depth(v any) int {
	deepest := 0
	switch v := v.(type) {
	case map[string]any:
		for _, m := range v {
			deepest = max(deepest, depth(m))
		}
	case []any:
		for _, m := range v {
			deepest = max(deepest, depth(m))
		}
	default:
		return 0
	}
	return deepest + 1
}
