package ctl

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// What hints and examples tell to run is there: a command that has others below
// it is followed by one of those.
func TestHintsNameCommands(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	root := (&cli{}).root()
	named, seen := regexp.MustCompile(`kbsctl((?: [a-z][a-z-]*)+)`), 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			if words := strings.Fields(m[1]); child(root, words[0]) != nil {
				seen++
				if missing := noCommand(root, words); missing != "" {
					t.Errorf("%s: there is no %q in %q", f, missing, m[0])
				}
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d commands were found in the text", seen)
	}
}

func child(of *cobra.Command, name string) *cobra.Command {
	for _, c := range of.Commands() {
		if c.Name() == name || c.HasAlias(name) {
			return c
		}
	}
	return nil
}

// noCommand returns the word that is no command where one has to be.
func noCommand(cmd *cobra.Command, words []string) string {
	for _, w := range words {
		if !cmd.HasSubCommands() {
			return ""
		}
		if cmd = child(cmd, w); cmd == nil {
			return w
		}
	}
	return ""
}
