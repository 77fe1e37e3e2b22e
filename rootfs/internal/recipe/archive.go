package recipe

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
)

// Archive is a suite of an archive that packages come from.
type Archive struct {
	URL        string   `toml:"url"` // above dists/
	Suite      string   `toml:"suite"`
	Components []string `toml:"components"`
	// Keyring is the file with the OpenPGP keys that sign the archive, and SHA256
	// that of this file. A path that is not absolute begins where the recipe is.
	Keyring string `toml:"keyring"`
	SHA256  string `toml:"keyring_sha256"`
	// Expired takes lists that are older than they say they may be, as those of an
	// archive of snapshots are.
	Expired bool `toml:"accept_expired"`
}

// suiteForm is a name below dists/, such as bookworm or bookworm-security, with
// directories on the way.
var suiteForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9./_-]{0,62}$`)

func (a Archive) check() []error {
	var all []error
	add := func(format string, args ...any) { all = append(all, fmt.Errorf("[[archive]] "+format, args...)) }
	u, err := url.Parse(a.URL)
	shown := "a url that is none"
	if err == nil {
		shown = u.Redacted() // it may have a password in it
	}
	if err != nil || !slices.Contains([]string{"http", "https", "file"}, u.Scheme) || u.User != nil {
		add("%.100s: want a url by http, https or file, without a password", shown)
	}
	for _, name := range append([]string{a.Suite}, a.Components...) {
		if !suiteForm.MatchString(name) || path.Clean(name) != name {
			add("%s: %.60q cannot be the name of a suite or of a component", shown, name)
		}
	}
	if len(a.Components) == 0 {
		add("%s: components is missing, for example [\"main\"]", shown)
	}
	digest, err := hex.DecodeString(a.SHA256)
	if a.Keyring == "" || err != nil || len(digest) != 32 {
		add("%s: want a keyring and its keyring_sha256: nothing else says whose packages these are", shown)
	}
	return all
}
