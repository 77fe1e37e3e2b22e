package tree

import (
	"io/fs"
	"strings"
	"testing"
)

func TestUnwanted(t *testing.T) {
	program := []byte("\x7fELF\x02")
	for name, c := range map[string]struct {
		path string
		file File
		want string
	}{
		"a shell":         {"/bin/sh", File{Mode: 0o755, Content: program, Declared: true}, "/usr/bin/sh, of p, is a shell"},
		"a link to one":   {"/bin/bash", File{Mode: fs.ModeSymlink | 0o777, Target: "agent"}, "is a shell"},
		"apt":             {"/usr/bin/apt-get", File{Mode: 0o755, Declared: true}, "is a package manager"},
		"set-user-ID":     {"/usr/bin/x", File{Mode: fs.ModeSetuid | 0o755, Content: program, Declared: true}, "rights of its owner"},
		"set-group-ID":    {"/usr/bin/x", File{Mode: fs.ModeSetgid | 0o755, Declared: true}, "rights of its owner"},
		"nobody named it": {"/usr/lib/x.so", File{Mode: 0o644, Content: program}, "that the recipe does not name"},
		"a script":        {"/usr/share/x", File{Mode: 0o644, Content: []byte("#!/init\n")}, "a script that the recipe does not name"},
	} {
		tr := New()
		c.file.Origin = "p"
		if err := tr.Add(c.path, c.file); err != nil {
			t.Fatal(err)
		}
		if err := tr.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := New().Check(); err != nil {
		t.Error(err)
	}
}

func TestAdd(t *testing.T) {
	tr := New()
	for i, step := range []struct {
		path    string
		file    File
		refused bool
	}{
		{"/lib/x/a", File{Mode: 0o644, Content: []byte("a")}, false},
		{"/usr/lib/x/a", File{Mode: 0o644, Content: []byte("a")}, false}, // the same
		{"/usr/lib/x/a", File{Mode: 0o644, Content: []byte("b")}, true},
		{"/usr/lib/x/a/b", File{Mode: 0o644}, true},
		{"/bin", File{Mode: 0o644}, true},
		{"/init/x", File{Mode: 0o644}, false},
		{"/proc", File{Mode: fs.ModeSymlink | 0o777, Target: "/etc"}, true},
	} {
		if err := tr.Add(step.path, step.file); (err != nil) != step.refused {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if f, ok := tr.Get("/lib/x"); !ok || !f.Mode.IsDir() {
		t.Error("the directories above a file are not there")
	}
}
