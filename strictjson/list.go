package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// List returns the elements of one array, none for null. More of them than most are an
// error before anything is made of them: a stranger's text may be short, and what a
// decoder makes of "{}" a hundred times as long.
func List(raw json.RawMessage, most int) ([]json.RawMessage, error) {
	if len(raw) == 0 || string(bytes.TrimSpace(raw)) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, fmt.Errorf("%w: not a list", ErrSyntax)
	}
	var list []json.RawMessage
	for d.More() {
		if len(list) == most {
			return nil, fmt.Errorf("%w: a list of more than %d elements", ErrSyntax, most)
		}
		var one json.RawMessage
		if err := d.Decode(&one); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSyntax, err)
		}
		list = append(list, one)
	}
	if _, err := d.Token(); err != nil || d.More() {
		return nil, fmt.Errorf("%w: not one list", ErrSyntax)
	}
	return list, nil
}
