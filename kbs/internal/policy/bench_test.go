package policy

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

const benchClaims = `{"submods":{"cpu0":{"ear.status":"affirming"}}}`

// BenchmarkAuthorize is a decision as it is made. With a thousand policies it
// costs what it costs with one; parsed claims are those of a token that is
// used again.
func BenchmarkAuthorize(b *testing.B) {
	for _, policies := range []int{1, 1000} {
		for _, parsed := range []bool{false, true} {
			b.Run(fmt.Sprintf("policies=%d/parsed=%v", policies, parsed), func(b *testing.B) {
				x := newBench(b)
				x.put(b, Resource, ResourcePolicy, defaultResource)
				x.many(b, policies-1)
				r := Release{Plugin: "resource", Path: []string{"a", "b", "c"}, Claims: json.RawMessage(benchClaims)}
				if parsed {
					var err error
					if r.Input, err = ParseInput(r.Claims); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if d, err := x.engine.Authorize(b.Context(), r); err != nil || !d.Allow {
							b.Error(d, err)
							return
						}
					}
				})
			})
		}
	}
}

// many stores policies for other prefixes.
func (b *bench) many(t testing.TB, n int) {
	t.Helper()
	err := b.st.Update(t.Context(), func(tx store.Tx) error {
		for i := range n {
			id := fmt.Sprintf("resource/repo-%d", i)
			v := version{Rego: fmt.Sprintf("package policy\n\nallow if input.n == %d\n", i)}
			v.SHA256 = digestOf(v.Rego)
			if err := putJSON(tx, versionKey(Resource, id, 1), v); err != nil {
				return err
			}
			if err := writeHead(tx, Resource, id, head{Latest: 1, Enforce: 1, About: v.about}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// BenchmarkAuthorizeSpread asks a thousand different policies in turn.
func BenchmarkAuthorizeSpread(b *testing.B) {
	x := newBench(b)
	x.many(b, 1000)
	in, err := ParseInput(json.RawMessage(`{"n":1}`))
	if err != nil {
		b.Fatal(err)
	}
	ask := func(i int) {
		path := []string{fmt.Sprintf("repo-%d", i%1000), "t", "g"}
		if d, err := x.engine.Authorize(b.Context(), Release{Plugin: "resource", Path: path, Input: in}); err != nil || d.Allow != (i%1000 == 1) {
			b.Fatal(d, err)
		}
	}
	for i := range 1000 {
		ask(i)
	}
	for i := 0; b.Loop(); i++ {
		ask(i)
	}
}

// BenchmarkAppraise judges SNP evidence by the default policy, with eleven
// reference values among many.
func BenchmarkAppraise(b *testing.B) {
	for _, values := range []int{11, 10_000} {
		b.Run(fmt.Sprintf("values=%d", values), func(b *testing.B) {
			x := newBench(b)
			x.put(b, Attestation, DefaultCPU, defaultCPU)
			c := platformCases["snp"]
			for name, value := range c.values {
				x.value(b, name, value)
			}
			x.values(b, values-len(c.values))
			input := c.input(b, nil)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if a, err := x.engine.Appraise(b.Context(), DefaultCPU, input); err != nil || aspects(a.Vector) != c.good {
						b.Error(a, err)
						return
					}
				}
			})
		})
	}
}

// values registers others.
func (b *bench) values(t testing.TB, n int) {
	t.Helper()
	err := b.st.Update(t.Context(), func(tx store.Tx) error {
		for i := range n {
			v := api.RefValue{Name: fmt.Sprintf("other/%d", i), Version: -1, Value: json.RawMessage(`["x"]`)}
			if _, err := b.refs.PutTx(tx, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// BenchmarkCompile is what every decision would pay without programs.
func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if err := Check(Attestation, defaultCPU); err != nil {
			b.Fatal(err)
		}
	}
}
