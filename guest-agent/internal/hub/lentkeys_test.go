package hub

import (
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// What opened an image can be asked for again, in the image's name, until the
// broker says no.
func TestAskForKeys(t *testing.T) {
	w := newWorld(t, nil)
	img, err := w.hub.PullImage(t.Context(), w.ref, w.bundle())
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Keys) != 1 || !strings.HasPrefix(img.Keys[0], "kbs:///"+kekPath+"?") {
		t.Fatalf("keys %q", img.Keys)
	}
	before := w.broker.asked(kekPath)
	if err := w.hub.AskForKeys(t.Context(), img); err != nil || w.broker.asked(kekPath) != before+1 {
		t.Fatalf("%v, asked %d times", err, w.broker.asked(kekPath)-before)
	}
	if q := w.broker.asksWith(kekPath); q.Get("image") != img.Digest {
		t.Errorf("asked in the name of %q", q.Get("image"))
	}
	w.broker.deny(kekPath, fault.NewTicket())
	if err := w.hub.AskForKeys(t.Context(), img); fault.CodeOf(err) != fault.PolicyDenied {
		t.Errorf("%v, want %s", err, fault.PolicyDenied)
	}
	plain, err := w.hub.PullImage(t.Context(), w.registry.host+"/shop/plain:1", w.bundle())
	if err == nil && len(plain.Keys) != 0 {
		t.Errorf("keys %q of an image without", plain.Keys)
	}
}
