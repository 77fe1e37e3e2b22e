package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// items is the form of every list of /v1.
type items[T any] struct {
	Items []T `json:"items"`
}

func listed[T any](all []T) items[T] {
	if all == nil {
		all = []T{} // an empty list is [], not null
	}
	return items[T]{all}
}

// number reads a query parameter, absent meaning the given value.
func number(r *http.Request, name string, absent, least, most int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fault.Newf(fault.InvalidRequest, "%s must be a number from %d to %d", name, least, most)
	}
	return n, nil
}

// exactBody reads what an administrator sent. Unknown members are an error: a
// binding to an image, or a revocation, that is misspelt must not become the
// request without it.
func exactBody(r *http.Request, v any) error {
	raw, err := body(r)
	if err != nil {
		return err
	}
	return exactly(raw, v)
}

func exactly(raw []byte, v any) error {
	if err := strictjson.Check(raw); err != nil {
		return fault.New(fault.InvalidRequest, err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fault.New(fault.InvalidRequest, err)
	}
	return nil
}
