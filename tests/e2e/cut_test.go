package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// coded is how the host is told that a container does not start.
var coded = regexp.MustCompile(`(unavailable|image_unavailable) \(ticket `)

// The network to the broker is cut after more and more bytes: in the handshake, in
// the attestation, in each of the answers that a start needs. Every time the
// runtime is told a code, and the guest is as before; the first start that the
// bytes suffice for succeeds, in the same place.
func TestTheNetworkIsCutAnywhereInAStart(t *testing.T) {
	g := launch(t, "cut")
	broker := strings.TrimPrefix(stage.Broker.URL, "https://")
	config, err := stage.ImageConfig(t.Context(), stage.ref)
	if err != nil {
		t.Fatal(err)
	}
	before, err := g.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	const step, most = 6 << 10, 200 << 10
	cuts := 0
	for bytes := int64(0); ; bytes += step {
		if err := g.Net.CutAfter(broker, bytes); err != nil {
			t.Fatal(err)
		}
		err := g.Kata().Container(t.Context(), "app", stage.ref, config)
		if err == nil {
			break
		}
		if bytes > most {
			t.Fatalf("with %d bytes: %v", bytes, err)
		}
		cuts++
		clean(t, g, before, bytes, err)
	}
	if err := g.Net.Mend(broker); err != nil {
		t.Fatal(err)
	}
	if cuts < 4 {
		t.Errorf("the network was cut at %d points alone", cuts)
	}
	if err := g.Kata().Remove(t.Context(), "app"); err != nil {
		t.Error(err)
	}
}

// clean compares a guest in which a start has failed with what it was before.
func clean(t *testing.T, g *world.Guest, before []string, bytes int64, err error) {
	t.Helper()
	if !coded.MatchString(err.Error()) {
		t.Errorf("cut after %d bytes: the runtime is told %v", bytes, err)
	}
	after, merr := g.Mounts()
	if merr != nil {
		t.Fatal(merr)
	}
	if !slices.Equal(after, before) {
		t.Errorf("cut after %d bytes: mounts %v, before %v", bytes, after, before)
	}
	if _, err := os.Stat(filepath.Join(g.Dir, "state", "app")); !os.IsNotExist(err) {
		t.Errorf("cut after %d bytes: something of the container is left: %v", bytes, err)
	}
}
