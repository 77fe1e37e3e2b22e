package version

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestOf(t *testing.T) {
	tail := " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
	for name, c := range map[string]struct {
		info        *debug.BuildInfo
		line, short string
	}{
		"unknown":  {nil, "kbs (devel)", "devel"},
		"no name":  {&debug.BuildInfo{}, "kbs (devel)", "devel"},
		"a tree":   {&debug.BuildInfo{Main: debug.Module{Version: devel}, Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0a1b"}, {Key: "vcs.modified", Value: "true"}}}, "kbs (devel) 0a1b (modified)", "devel"},
		"a clean":  {&debug.BuildInfo{Main: debug.Module{Version: devel}, Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0a1b"}, {Key: "vcs.modified", Value: "false"}}}, "kbs (devel) 0a1b", "devel"},
		"released": {&debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, "kbs v1.2.3", "v1.2.3"},
	} {
		b := of(c.info)
		if got := b.Line("kbs"); got != c.line+tail || b.Short() != c.short {
			t.Errorf("%s: %q, %q", name, got, b.Short())
		}
	}
	if Here().Go != runtime.Version() {
		t.Error("another build than this one")
	}
}
