package access

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/caller"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// everything gives everything, and notes refusals.
type everything struct{ refused []hub.ObjectKind }

func (*everything) Resource(context.Context, string) (secret.Bytes, error) {
	return secret.Bytes{}, nil
}
func (*everything) Token(context.Context, string) (secret.Bytes, error)        { return secret.Bytes{}, nil }
func (*everything) Evidence(context.Context, []byte) ([]byte, error)           { return nil, nil }
func (*everything) AdditionalEvidence(context.Context, []byte) ([]byte, error) { return nil, nil }
func (*everything) BindInitData(context.Context, []byte) error                 { return nil }
func (*everything) AdditionalPlatforms() []measure.Platform                    { return nil }
func (*everything) Platform() measure.Platform                                 { return measure.SNP }
func (*everything) Record(context.Context, eventlog.RuntimeEvent) error        { return nil }
func (*everything) Unseal(context.Context, string) (secret.Bytes, error)       { return secret.Bytes{}, nil }
func (*everything) PullImage(context.Context, string, string) (hub.PulledImage, error) {
	return hub.PulledImage{}, nil
}
func (*everything) UnwrapKey(context.Context, []byte) (secret.Bytes, error) {
	return secret.Bytes{}, nil
}
func (*everything) SecureMount(context.Context, string, map[string]string, []string, string) error {
	return nil
}
func (e *everything) Refuse(_ context.Context, kind hub.ObjectKind, _ string, err error) error {
	e.refused = append(e.refused, kind)
	return err
}

// Callers of the tests: a container over loopback, one at root's socket, a
// program at either, one that cannot be found, and one that came through no door.
func from(t *testing.T, who string) context.Context {
	t.Helper()
	ctx := t.Context()
	switch who {
	case "nowhere":
		return ctx
	case "unknown":
		return caller.Through(ctx, false, func() (caller.Caller, error) { return caller.Caller{}, errors.New("who?") })
	case "guest program over TCP":
		return caller.Through(ctx, false, func() (caller.Caller, error) { return caller.Caller{PID: 9}, nil })
	case "guest program":
		return caller.Through(ctx, true, func() (caller.Caller, error) { return caller.Caller{PID: 9}, nil })
	}
	name, rooted := strings.CutSuffix(who, " at root's socket")
	return caller.Through(ctx, rooted, func() (caller.Caller, error) {
		return caller.Caller{PID: 100, Container: &caller.Container{ID: "1", Name: name}}, nil
	})
}

// calls are all that can be asked.
var calls = map[string]func(ctx context.Context, g *Guard) error{
	"own resource":   func(ctx context.Context, g *Guard) error { return second(g.Resource(ctx, "kbs:///default/app/1")) },
	"exact resource": func(ctx context.Context, g *Guard) error { return second(g.Resource(ctx, "kbs:///default/shared/key")) },
	"another's": func(ctx context.Context, g *Guard) error {
		return second(g.Resource(ctx, "kbs:///default/application/1"))
	},
	"longer exact": func(ctx context.Context, g *Guard) error {
		return second(g.Resource(ctx, "kbs:///default/shared/key2"))
	},
	"another broker's": func(ctx context.Context, g *Guard) error { return second(g.Resource(ctx, "kbs://b:1/default/app/1")) },
	"plugin": func(ctx context.Context, g *Guard) error {
		return second(g.Resource(ctx, "kbs+pkcs11:///default/app?x=1"))
	},
	"no URI":      func(ctx context.Context, g *Guard) error { return second(g.Resource(ctx, "kbs:///default/app/../x")) },
	"token":       func(ctx context.Context, g *Guard) error { return second(g.Token(ctx, "kbs")) },
	"other token": func(ctx context.Context, g *Guard) error { return second(g.Token(ctx, "coco_as")) },
	"evidence":    func(ctx context.Context, g *Guard) error { return second(g.Evidence(ctx, nil)) },
	"event":       func(ctx context.Context, g *Guard) error { return g.Record(ctx, eventlog.RuntimeEvent{}) },
	"sealed":      func(ctx context.Context, g *Guard) error { return second(g.Unseal(ctx, "sealed.")) },
	"image":       func(ctx context.Context, g *Guard) error { return second(g.PullImage(ctx, "ref", "/b")) },
	"layer key":   func(ctx context.Context, g *Guard) error { return second(g.UnwrapKey(ctx, nil)) },
	"volume":      func(ctx context.Context, g *Guard) error { return g.SecureMount(ctx, "", nil, nil, "/m") },
}

func second[T any](_ T, err error) error { return err }

var testRules = []Rule{
	{Container: "app", Resources: []string{"kbs:///default/app/", "kbs:///default/shared/key"}, Tokens: []string{"kbs"}},
	{Container: "app", Events: true},
	{Container: "prover", Evidence: true, Sealed: true},
	{Container: "all", Resources: []string{Anyone}},
}

func TestWhoMayHaveWhat(t *testing.T) {
	served := map[string]string{ // by caller: what is served; "" without rules as with them
		"app":                    "own resource, exact resource, token, event",
		"prover":                 "evidence, device evidence, sealed",
		"all":                    "own resource, exact resource, another's, longer exact, another broker's, plugin",
		"stranger":               "",
		"unknown":                "",
		"nowhere":                "",
		"guest program over TCP": "",
		"app at root's socket":   "own resource, exact resource, token, event",
		"guest program":          "*",
	}
	for who, may := range served {
		for name, call := range calls {
			h := &everything{}
			err := call(from(t, who), New(h, testRules))
			want := may == "*" || strings.Contains(", "+may+",", ", "+name+",")
			if (err == nil) != want {
				t.Errorf("%s asks for %s: %v", who, name, err)
			}
			if !want && (fault.CodeOf(err) != fault.Forbidden || len(h.refused) != 1) {
				t.Errorf("%s asks for %s: %v, refused %v", who, name, err, h.refused)
			}
		}
	}
}

// Without rules all but the guest's own affairs are for everyone who can ask.
func TestWithoutRules(t *testing.T) {
	for _, who := range []string{"app", "unknown", "nowhere", "guest program over TCP", "app at root's socket", "guest program"} {
		for name, call := range calls {
			err := call(from(t, who), New(&everything{}, nil))
			want := who == "guest program" || name != "image" && name != "layer key" && name != "volume"
			if (err == nil) != want {
				t.Errorf("%s asks for %s: %v", who, name, err)
			}
		}
	}
}

func TestAnyone(t *testing.T) {
	g := New(&everything{}, []Rule{{Container: Anyone, Tokens: []string{"kbs"}}})
	if err := calls["token"](from(t, "stranger"), g); err != nil {
		t.Error(err)
	}
	if err := calls["token"](from(t, "unknown"), g); fault.CodeOf(err) != fault.Forbidden {
		t.Errorf("nobody known is anyone: %v", err)
	}
}

func TestValidate(t *testing.T) {
	if err := Validate(testRules); err != nil {
		t.Error(err)
	}
	for name, r := range map[string]Rule{
		"nobody":       {},
		"a path":       {Container: "a", Resources: []string{"default/app/"}},
		"all by slash": {Container: "a", Resources: []string{"kbs:///"}},
		"a pattern":    {Container: "a", Resources: []string{"kbs:///default/*"}},
		"a query":      {Container: "a", Resources: []string{"kbs:///a/b/c?x"}},
		"no token":     {Container: "a", Tokens: []string{"jwt"}},
	} {
		if Validate([]Rule{r}) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
