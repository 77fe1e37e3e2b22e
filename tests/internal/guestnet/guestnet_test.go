package guestnet

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestOnlyWhatIsForwardedCanBeReached(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	serve := func(text string) (addr string) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	open, closed := serve("open"), serve("closed")
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := n.Forward(open); err != nil {
		t.Fatal(err)
	}
	if got, err := n.Get(t.Context(), "http://"+open); err != nil || got != "open" {
		t.Errorf("forwarded address: %q, %v", got, err)
	}
	if got, err := n.Get(t.Context(), "http://"+closed); err == nil {
		t.Errorf("an address that was not forwarded answered %q", got)
	}

	var out strings.Builder
	cmd := exec.Command("cat", "/proc/net/dev")
	cmd.Stdout = &out
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name != "lo" && strings.Contains(out.String(), " "+l.Name+":") {
			t.Errorf("the guest sees the host's interface %s", l.Name)
		}
	}
}
