package reference

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// In the generated page, a flag that takes a value names what it takes, and each
// program says its exit codes: a type such as "string" tells a reader nothing.
func TestHelpNamesWhatFlagsTake(t *testing.T) {
	text, err := os.ReadFile("../../../docs/reference/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	bare := regexp.MustCompile(`^ +(?:-., )?--[a-z0-9-]+ (string|strings|stringArray|stringToString|int|int64|uint|uint64|float|float64|duration|ints)(?: |$)`)
	flag := regexp.MustCompile(`^ +(?:-., )?--[a-z0-9-]+ ([a-z]+)   +`)
	page, flags := "", 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
			page = strings.TrimLeft(line, "# ")
		case bare.MatchString(line):
			t.Errorf("%s: a flag takes a bare type: %s", page, line)
		case flag.MatchString(line) && !strings.Contains(page, "completion"):
			t.Errorf("%s: what a flag takes is written in capitals: %s", page, line)
		}
		if strings.Contains(line, " --") {
			flags++
		}
	}
	if flags < 500 {
		t.Errorf("only %d flags found", flags)
	}
	for _, program := range Programs {
		_, section, _ := strings.Cut(string(text), "\n## "+program+"\n")
		section, _, _ = strings.Cut(section, "\n### ")
		if !strings.Contains(section, "Exit codes: 0 ok") {
			t.Errorf("%s does not say its exit codes", program)
		}
	}
}
