package token_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func put(t *testing.T, tok *token.Token, path, value string) {
	t.Helper()
	if err := tok.Put(t.Context(), path, secret.Copy([]byte(value))); err != nil {
		t.Fatalf("put %s: %v", path, err)
	}
}

func get(t *testing.T, tok *token.Token, path, want string) {
	t.Helper()
	value, err := tok.Get(t.Context(), path)
	if err != nil || string(value.Reveal()) != want {
		t.Errorf("get %s: %d bytes, %v", path, value.Len(), err)
	}
}

func TestObjects(t *testing.T) {
	tok, ctx := open(t), t.Context()
	for path, value := range map[string]string{"o/t/1": "one", "o/t/empty": "", "o/t/large": strings.Repeat("x", token.MaxValue), "o/u/1": "\x00\xff"} {
		put(t, tok, path, value)
		get(t, tok, path, value)
	}
	put(t, tok, "o/t/1", "two")
	get(t, tok, "o/t/1", "two")
	if err := tok.Close(); err != nil {
		t.Fatal(err)
	}
	tok = open(t) // another login sees what is in the token
	get(t, tok, "o/t/1", "two")

	if err := tok.Put(ctx, "o/t/1", secret.Random(token.MaxValue+1)); !errors.Is(err, token.ErrSize) {
		t.Errorf("too large: %v", err)
	}
	for _, path := range []string{"", "o", "o/t", "o/t/1/2", "../t/1", "o//1", "o/t/\x00", "o/t/" + strings.Repeat("x", 129)} {
		_, err := tok.Get(ctx, path)
		_, gone := tok.Delete(ctx, path)
		if err := errors.Join(err, gone, tok.Put(ctx, path, secret.Random(1))); strings.Count(err.Error(), token.ErrPath.Error()) != 3 {
			t.Errorf("%q: %v", path, err)
		}
	}
	var got []string
	for after, going := "", true; going; {
		page, next, err := tok.List(ctx, "o/t", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			got = append(got, fmt.Sprint(e.Path, " ", e.Size))
		}
		after, going = next, next != ""
	}
	if want := fmt.Sprint("o/t/1 3,o/t/empty 0,o/t/large ", token.MaxValue); strings.Join(got, ",") != want {
		t.Errorf("list: %q", got)
	}
	if _, _, err := tok.List(ctx, "", "", token.MaxPage+1); !errors.Is(err, token.ErrSize) {
		t.Errorf("a large page: %v", err)
	}
	if size, err := tok.Delete(ctx, "o/t/1"); err != nil || size != 3 {
		t.Errorf("delete: %d, %v", size, err)
	}
	if _, err := tok.Delete(ctx, "o/t/1"); !errors.Is(err, token.ErrUnknown) {
		t.Errorf("delete nothing: %v", err)
	}
	if _, err := tok.Get(ctx, "o/t/1"); !errors.Is(err, token.ErrUnknown) {
		t.Errorf("get nothing: %v", err)
	}
}

// Objects of other authors: read where they are one and give themselves out.
func TestForeignObjects(t *testing.T) {
	tok, ctx := open(t), t.Context()
	foreign := func(class uint, label, value string, more ...*pkcs11.Attribute) {
		t.Helper()
		err := token.Create(tok, append(more, pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE, value))...)
		if err != nil {
			t.Fatal(err)
		}
	}
	generic := pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET)
	open := []*pkcs11.Attribute{generic, pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false)}
	shut := []*pkcs11.Attribute{generic, pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true)}
	foreign(pkcs11.CKO_DATA, "f/t/data", "data")
	foreign(pkcs11.CKO_SECRET_KEY, "f/t/key", "key", open...)
	foreign(pkcs11.CKO_SECRET_KEY, "f/t/shut", "shut", shut...)
	foreign(pkcs11.CKO_DATA, "f/t/twin", "a")
	foreign(pkcs11.CKO_DATA, "f/t/twin", "b")
	foreign(pkcs11.CKO_DATA, "f/t/large", strings.Repeat("x", token.MaxValue+1))
	foreign(pkcs11.CKO_DATA, "not a path", "x")
	get(t, tok, "f/t/data", "data")
	get(t, tok, "f/t/key", "key")
	for _, path := range []string{"f/t/shut", "f/t/twin", "f/t/large"} {
		if _, err := tok.Get(ctx, path); !errors.Is(err, token.ErrKey) {
			t.Errorf("%s: %v", path, err)
		}
	}
	page, next, err := tok.List(ctx, "f/", "", 100)
	if err != nil || next != "" || len(page) != 2 || page[0].Path != "f/t/data" || page[1].Path != "f/t/key" {
		t.Errorf("%v, %q, %v", page, next, err)
	}
	for _, path := range []string{"f/t/shut", "f/t/twin", "f/t/data"} { // what is put takes their place
		put(t, tok, path, "ours")
		get(t, tok, path, "ours")
		if size, err := tok.Delete(ctx, path); err != nil || size != 4 {
			t.Errorf("%d, %v", size, err)
		}
		if _, err := tok.Get(ctx, path); !errors.Is(err, token.ErrUnknown) {
			t.Errorf("%s, deleted: %v", path, err)
		}
	}
}

// A process that was killed between making the new object and destroying the
// old one left both: the later one counts, and the next put clears up.
func TestReplacementThatWasCutShort(t *testing.T) {
	tok := open(t)
	put(t, tok, "cut/t/1", "old")
	err := token.Create(tok, pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_DATA), pkcs11.NewAttribute(pkcs11.CKA_LABEL, "cut/t/1"),
		pkcs11.NewAttribute(pkcs11.CKA_APPLICATION, "vouchsafe/7fffffffffffff00"), pkcs11.NewAttribute(pkcs11.CKA_VALUE, "new"))
	if err != nil {
		t.Fatal(err)
	}
	get(t, tok, "cut/t/1", "new")
	put(t, tok, "cut/t/1", "newest")
	get(t, tok, "cut/t/1", "newest")
}

func TestPair(t *testing.T) {
	tok, ctx := open(t), t.Context()
	for range 2 { // the second time there is one
		if err := tok.MakePair(ctx, "pair"); err != nil {
			t.Fatal(err)
		}
	}
	if err := tok.MakePair(ctx, "another"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		padding token.Padding
		most    int
	}{{token.OAEPSHA1, 384 - 42}, {token.Test, 384 - 11}} {
		p := token.Pair{Label: "pair", Padding: c.padding}
		value := secret.Random(c.most)
		wrapped, err := tok.WrapKey(ctx, p, value)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := tok.UnwrapKey(ctx, p, wrapped); err != nil || !back.Equal(value) {
			t.Errorf("%s: %v", c.padding, err)
		}
		for _, n := range []int{0, c.most + 1} {
			if _, err := tok.WrapKey(ctx, p, secret.Random(n)); !errors.Is(err, token.ErrSize) {
				t.Errorf("%s, %d bytes: %v", c.padding, n, err)
			}
		}
		for _, bad := range [][]byte{nil, wrapped[:383], append(wrapped[:384:384], 0), make([]byte, 384)} {
			if _, err := tok.UnwrapKey(ctx, p, bad); !errors.Is(err, token.ErrOpen) {
				t.Errorf("%s, %d bytes: %v", c.padding, len(bad), err)
			}
		}
		if _, err := tok.UnwrapKey(ctx, token.Pair{Label: "none", Padding: c.padding}, wrapped); !errors.Is(err, token.ErrUnknown) {
			t.Errorf("no such pair: %v", err)
		}
	}
	p := token.Pair{Label: "pair", Padding: token.OAEPSHA1}
	wrapped, err := tok.WrapKey(ctx, p, secret.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	wrapped[100] ^= 1
	if _, err := tok.UnwrapKey(ctx, p, wrapped); !errors.Is(err, token.ErrOpen) {
		t.Errorf("altered: %v", err)
	}
	wrapped[100] ^= 1
	p.Label = "another"
	if _, err := tok.UnwrapKey(ctx, p, wrapped); !errors.Is(err, token.ErrOpen) {
		t.Errorf("of another pair: %v", err)
	}
}
