package reference

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The pages in docs/reference must be what the code says today.
func TestPagesAreCurrent(t *testing.T) {
	const root = "../../.."
	bin, out := t.TempDir(), t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+"/",
		"./measure/cmd/measure", "./kbs/cmd/kbs", "./kbs/cmd/kbsctl", "./guest-agent/cmd/guest-agent")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if err := Write(t.Context(), out, bin); err != nil {
		t.Fatal(err)
	}
	for _, page := range append([]string{"codes.md", "commands.md"}, BrokerPages...) {
		want, err := os.ReadFile(filepath.Join(out, page))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(root, "docs/reference", page))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("docs/reference/%s is not what the code says: run `make generate`", page)
		}
	}
}
