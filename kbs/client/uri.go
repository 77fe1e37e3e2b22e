package client

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// ResourceURI names something that a broker hands out: kbs://[host]/repo/type/tag
// for resources, kbs+plugin://[host]/path[?query] for other plugins
// (guest-protocol 9). Values come from [ParseResourceURI].
type ResourceURI struct {
	Plugin string // "resource" if the scheme names none
	Host   string // kept but not used: the configured broker is always asked
	Path   string // segments with "/" between them, none in front
	Query  string // as written, without "?"
}

// DefaultPlugin is the plugin that plain kbs:// names.
const DefaultPlugin = "resource"

const (
	maxURI    = 2048 // bytes
	maxHost   = 259  // a name of 253 bytes and a port
	maxPlugin = 64
)

var (
	pluginForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
	hostForm   = regexp.MustCompile(`^(([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?)?$`)
	// The broker's own rule for resources (kbs-protocol 8.1), so also: no
	// leading dot, no empty segment, nothing escaped.
	segmentForm = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]*$`)
	queryForm   = regexp.MustCompile(`^[A-Za-z0-9._~%+&=:@/,!*-]+$`)
)

// ParseResourceURI reads a resource URI strictly: exactly three segments for
// resources, no escapes or dot segments in the path, no fragment, no user.
// URIs come from image annotations and pod specifications, which the host
// writes; a name that two parsers read differently must not get through. Names
// of the broker's own endpoints are no plugins.
func ParseResourceURI(s string) (ResourceURI, error) {
	if len(s) > maxURI {
		return ResourceURI{}, errors.New("resource URI is too long")
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return ResourceURI{}, errors.New("resource URI does not start with kbs://")
	}
	u := ResourceURI{Plugin: DefaultPlugin}
	if scheme != "kbs" {
		plugin, ok := strings.CutPrefix(scheme, "kbs+")
		if !ok || len(plugin) > maxPlugin || !pluginForm.MatchString(plugin) || reserved(plugin) {
			return ResourceURI{}, errors.New("scheme of a resource URI is not kbs or kbs+plugin")
		}
		u.Plugin = plugin
	}
	rest, u.Query, ok = strings.Cut(rest, "?")
	if ok && !validQuery(u.Query) {
		return ResourceURI{}, errors.New("query of the resource URI is malformed")
	}
	u.Host, u.Path, ok = strings.Cut(rest, "/")
	if !ok || len(u.Host) > maxHost || !hostForm.MatchString(u.Host) {
		return ResourceURI{}, errors.New("resource URI has no path or a malformed host")
	}
	segments := strings.Split(u.Path, "/")
	for _, seg := range segments {
		if !segmentForm.MatchString(seg) {
			return ResourceURI{}, fmt.Errorf("segment %.64q of the resource URI is malformed", seg)
		}
	}
	if u.Plugin == DefaultPlugin && len(segments) != 3 {
		return ResourceURI{}, errors.New("a resource is named by repository, type and tag")
	}
	return u, nil
}

// reserved reports whether a name is an endpoint of the broker itself
// (kbs-protocol 2.2).
func reserved(plugin string) bool {
	switch api.PathPrefix + "/" + plugin {
	case api.PathAuth, api.PathAttest, api.PathResourcePolicy, api.PathAttestationPolicy, api.PathReferenceValue:
		return true
	}
	return false
}

func validQuery(q string) bool {
	_, err := url.ParseQuery(q)
	return err == nil && queryForm.MatchString(q)
}

// String returns the URI; kbs+resource:// becomes kbs://.
func (u ResourceURI) String() string {
	scheme := "kbs"
	if u.Plugin != DefaultPlugin {
		scheme += "+" + u.Plugin
	}
	return scheme + "://" + u.Host + "/" + u.Path + u.suffix()
}

// requestPath returns what to ask the broker for.
func (u ResourceURI) requestPath() string {
	return api.PathPrefix + "/" + u.Plugin + "/" + u.Path + u.suffix()
}

func (u ResourceURI) suffix() string {
	if u.Query == "" {
		return ""
	}
	return "?" + u.Query
}
