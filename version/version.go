// Package version tells which build of the project a program is.
package version

import (
	"runtime"
	"runtime/debug"
)

// Build is what is known of one, as the commands named version print it.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a changed tree
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// devel is the version of what was built from no release.
const devel = "(devel)"

// Here returns the build of this program.
func Here() Build {
	info, _ := debug.ReadBuildInfo()
	return of(info)
}

func of(info *debug.BuildInfo) Build {
	b := Build{Version: devel, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info == nil {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// Short is the version alone as protocols carry it, "devel" without a release.
func (b Build) Short() string {
	if b.Version == devel {
		return "devel"
	}
	return b.Version
}

// Line is all of it after the program's name, for a person.
func (b Build) Line(program string) string {
	line := program + " " + b.Version
	if b.Revision != "" {
		line += " " + b.Revision
	}
	if b.Modified {
		line += " (modified)"
	}
	return line + " " + b.Go + " " + b.Platform
}
