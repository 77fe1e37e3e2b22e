package e2e

import (
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// The owner gives one container one secret. It serves its page with it; what is
// in no container gets nothing, and neither does a container of another name.
func TestAContainerHasWhatItsRuleGives(t *testing.T) {
	for name, c := range map[string]struct {
		rule   string
		served bool
	}{
		"its-own":   {"container = 'app'\nresources = ['kbs:///" + world.SecretResource + "']", true},
		"anothers":  {"container = 'side'\nresources = ['*']", false},
		"something": {"container = 'app'\nresources = ['kbs:///default/other/']\nevidence = true", false},
	} {
		t.Run(name, func(t *testing.T) {
			pod := world.Pod{Image: stage.ref, DataHub: "[[vouchsafe.access]]\n" + c.rule}
			g, err := stage.Launch(t.Context(), "rule-"+name, stage.vendor, world.CommandLine, pod)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := g.Stop(); err != nil {
					t.Error(err)
				}
			})
			if err := g.Kata().Pod(t.Context()); err != nil {
				t.Fatal(err)
			}
			if c.served {
				serve(t, g, "app")
			} else {
				config, err := stage.ImageConfig(t.Context(), stage.ref)
				if err != nil {
					t.Fatal(err)
				}
				if err := g.Kata().Container(t.Context(), "app", stage.ref, config); err != nil {
					t.Fatal(err)
				}
				if text := g.Kata().Errors(t.Context(), "app"); !strings.Contains(text, "403") {
					t.Errorf("the container was told %q", text)
				}
			}
			body, err := g.Net.Get(t.Context(), "http://127.0.0.1:8006/cdh/resource/"+world.SecretResource)
			if err == nil || !strings.HasPrefix(body, "forbidden (ticket ") {
				t.Errorf("who is in no container gets %q, %v", body, err)
			}
		})
	}
}
