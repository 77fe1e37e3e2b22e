package audit

import (
	"math/rand/v2" //nolint:depguard // the same entries in every run
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jcs"
)

// same compares the direct encoder with the general one.
func same(t *testing.T, e api.AuditEntry) {
	t.Helper()
	makeValid(&e)
	want, err := jcs.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if got := appendCanonical(nil, &e); string(got) != string(want) {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestCanonicalIsWhatJCSWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	letters := []rune("aZ09\"\\/\b\f\n\r\t\x00\x1f\x7f<>&\u0080é\u07ff\u2028\ud7ff\ue000\ufb33\ufffd\uffff\U00010000\U0001f600\U0010ffff")
	word := func() string {
		var b strings.Builder
		for range r.IntN(6) {
			b.WriteRune(letters[r.IntN(len(letters))])
		}
		if r.IntN(20) == 0 {
			b.WriteByte(0xff)
		}
		return b.String()
	}
	for range 5000 {
		e := api.AuditEntry{
			Index: r.Int64N(maxIndex), Tenant: word(), Time: time.Unix(r.Int64N(4e9), r.Int64N(1e9)).UTC().Truncate(time.Microsecond),
			Kind: api.AuditKind(word()), Decision: word(), Code: word(), Ticket: word(), Subject: word(), Object: word(),
		}
		if n := r.IntN(12); n > 0 {
			e.Details = map[string]string{}
			for range n {
				e.Details[word()] = word()
			}
		}
		same(t, e)
	}
}

func FuzzCanonical(f *testing.F) {
	f.Add("release", "a\xffb", "\u2028", "k\ue000", "\U0001f600", int64(7), int64(0))
	f.Fuzz(func(t *testing.T, kind, subject, object, a, b string, index, nano int64) {
		index &= maxIndex - 1
		at := time.Unix(nano&0xffffffff, nano&0x3fffffff).UTC().Truncate(time.Microsecond)
		same(t, api.AuditEntry{Index: index, Kind: api.AuditKind(kind), Subject: subject, Object: object, Time: at, Details: map[string]string{a: b, b: a}})
	})
}
