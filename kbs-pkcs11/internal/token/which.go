package token

import (
	"errors"
	"fmt"
	"strings"
)

// Which names one token by what it says of itself (RFC 7512 section 2.3); members
// that are empty fit every token, but not all of them may be.
type Which struct {
	Label, Serial, Manufacturer, Model string
	Slot                               *uint // CK_SLOT_ID
}

func (w Which) String() string {
	var all []string
	for _, part := range []struct{ name, value string }{{"label", w.Label}, {"serial", w.Serial}, {"manufacturer", w.Manufacturer}, {"model", w.Model}} {
		if part.value != "" {
			all = append(all, fmt.Sprintf("%s %q", part.name, part.value))
		}
	}
	if w.Slot != nil {
		all = append(all, fmt.Sprintf("slot %d", *w.Slot))
	}
	return strings.Join(all, ", ")
}

// slot finds the token; two that fit are as bad as none.
func (t *Token) slot() (uint, error) {
	want := t.cfg.Token
	if want == (Which{}) {
		return 0, errors.New("nothing says which token is meant")
	}
	slots, err := t.lib.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("list the slots: %w", err)
	}
	fits := func(want, seen string) bool { return want == "" || want == seen }
	var found []uint
	for _, s := range slots {
		info, err := t.lib.GetTokenInfo(s)
		if err == nil && fits(want.Label, info.Label) && fits(want.Serial, info.SerialNumber) && fits(want.Manufacturer, info.ManufacturerID) &&
			fits(want.Model, info.Model) && (want.Slot == nil || *want.Slot == s) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d of %d tokens are that with %s, want one", len(found), len(slots), want)
	}
	return found[0], nil
}
