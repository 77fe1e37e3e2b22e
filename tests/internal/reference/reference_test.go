package reference

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/lab"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/programs"
)

// The pages in docs/reference must be what the code says today.
func TestPagesAreCurrent(t *testing.T) {
	const root = "../../.."
	bin, out := t.TempDir(), t.TempDir()
	err := programs.Build(t.Context(), bin, "measure/cmd/measure", "kbs/cmd/kbs", "kbs/cmd/kbsctl", "guest-agent/cmd/guest-agent", "rootfs/cmd/rootfs")
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), out, bin); err != nil {
		t.Fatal(err)
	}
	for _, page := range append([]string{"codes.md", "commands.md", AgentPage}, BrokerPages...) {
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

// So must the tables in the page of the platforms.
func TestPlatformsAreCurrent(t *testing.T) {
	const root = "../../.."
	want, err := Platforms(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, PlatformsPage))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the code says: run `make generate`", PlatformsPage)
	}
}

// What the page says in words about claims is about claims that exist: each
// name in code spans of a platform's part is one that its verifier makes, a
// check, a key of the configuration, or a word of this list.
func TestPlatformsNameRealClaims(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("../../..", PlatformsPage))
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("../../../docs/reference/config.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(page), "\n## ")[2:]
	for _, part := range parts {
		name, _, _ := strings.Cut(part, "\n")
		words := block.ReplaceAllString(part, "")
		tables := block.FindString(part)
		for _, m := range codeSpan.FindAllStringSubmatch(words, -1) {
			word := strings.TrimSuffix(m[1], "*")
			if slices.Contains(notClaims, word) {
				continue
			}
			if !strings.Contains(tables, "`"+word) && !strings.Contains(tables, "."+word) && !strings.Contains(string(config), "| `"+word+"` |") {
				t.Errorf("%s: %q is no claim of the verifier, and no key of the configuration", name, m[1])
			}
		}
	}
	if len(parts) != len(lab.Platforms()) {
		t.Errorf("%d platforms have a part, %d are verified", len(parts), len(lab.Platforms()))
	}
}

var codeSpan = regexp.MustCompile("`([^`\n]+)`")

// notClaims are values, and claims that only some machines make.
var notClaims = []string{
	"UpToDate", "0", "\"false\"", "secured", "success", "not-checked", "MPT", "config.feature_flag", "x-nvidia-", "insecure_no_revocation",
	"http://arm.com/CCA-SSD/1.0.0", "tag:arm.com,2023:cca_platform#1.0.0", "details", "event", "ima",
}
