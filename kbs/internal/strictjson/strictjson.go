// Package strictjson is the module's older name for the reader of strangers'
// JSON.
package strictjson

import "github.com/vouchsafe-cc/vouchsafe/strictjson"

// ErrSyntax is returned for every text that is refused.
var ErrSyntax = strictjson.ErrSyntax

// Decode reads exactly one JSON value into v.
func Decode(raw []byte, v any) error { return strictjson.Decode(raw, v) }

// Check refuses what two readers could read in two ways.
func Check(raw []byte) error { return strictjson.Check(raw) }
