package settings

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/lease"
)

// AttestationService says where tokens of type coco_as come from.
type AttestationService struct {
	URL               string // no trailing slash; empty: none
	InsecurePlainHTTP bool
}

// Credential is a resource that is written to a file (guest-protocol 8.2).
type Credential struct {
	ResourceURI string
	Path        string // below CredentialDir
}

// CredentialDir is where credentials may be written (guest-protocol 8.3).
const CredentialDir = "/run/confidential-containers/cdh/kbs"

const maxCredentials = 64

// AccessRule is one of [[vouchsafe.access]] in cdh.toml: what one container of
// the pod may have. Its meaning is in package access.
type AccessRule struct {
	Container string   `toml:"container"`
	Resources []string `toml:"resources"`
	Tokens    []string `toml:"tokens"`
	Evidence  bool     `toml:"evidence"`
	Events    bool     `toml:"events"`
	Sealed    bool     `toml:"sealed"`
}

type credentialTable struct {
	ResourceURI string `toml:"resource_uri"`
	Path        string `toml:"path"`
}

// joinComponents reads what concerns the attestation agent and the data hub
// themselves.
func (s *Settings) joinComponents(cmd commandLine, docs documents) (err error) {
	s.Credentials = cmd.credentials
	if s.Leases, err = leases(docs); err != nil {
		return err
	}
	if docs.aa != nil {
		if as := docs.aa.TokenConfigs.AS; as != nil {
			if s.AttestationService, err = attestationService(as.URL, s.Broker.InsecurePlainHTTP); err != nil {
				return err
			}
		}
		if err := s.logLevel(cmd, DocumentAA, docs.aa.Log); err != nil {
			return err
		}
	}
	if docs.cdh == nil {
		return checkCredentials(s.Credentials)
	}
	d := docs.cdh
	if err := s.logLevel(cmd, DocumentCDH, d.Log); err != nil {
		return err
	}
	for name, at := range map[string]string{"aa.aa_socket": d.AA.Socket, "socket": d.Socket} {
		if err := checkSocket(at); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	s.AttestationSocket, s.DataHubSocket = d.AA.Socket, d.Socket
	s.Access = d.Vouchsafe.Access
	s.InsecureTokenKeyPairs = d.Vouchsafe.InsecureTokenKeyPairs
	s.Credentials = nil
	for _, c := range d.Credentials {
		s.Credentials = append(s.Credentials, Credential(c))
	}
	s.Credentials = append(s.Credentials, cmd.credentials...)
	return checkCredentials(s.Credentials)
}

// Bounds of lease_interval; the shortest is what brokers should bear.
const (
	usualInterval    = 5 * time.Minute
	shortestInterval = 5 * time.Second
	longestInterval  = 24 * time.Hour
)

func leases(docs documents) (l Leases, err error) {
	l.Interval = usualInterval
	if docs.cdh == nil {
		return l, nil
	}
	v := docs.cdh.Vouchsafe
	inRange := func(seconds int64) bool {
		return seconds >= int64(shortestInterval/time.Second) && seconds <= int64(longestInterval/time.Second)
	}
	if v.LeaseInterval != nil {
		if s := *v.LeaseInterval; s != 0 && !inRange(s) {
			return l, fmt.Errorf("vouchsafe.lease_interval is %d seconds: want 0 for never, or %v to %v", s, shortestInterval, longestInterval)
		}
		l.Interval = time.Duration(*v.LeaseInterval) * time.Second
	}
	if v.LeaseGrace != 0 && !inRange(v.LeaseGrace) {
		return l, fmt.Errorf("vouchsafe.lease_grace is %d seconds: want 0 for no end, or %v to %v", v.LeaseGrace, shortestInterval, longestInterval)
	}
	l.Grace, l.OnEnd = time.Duration(v.LeaseGrace)*time.Second, v.OnLeaseEnd
	if _, err := lease.ParseAction(l.OnEnd); err != nil {
		return l, fmt.Errorf("vouchsafe.on_lease_end: %w", err)
	}
	if l.Interval == 0 && (l.Grace != 0 || l.OnEnd != "") {
		return l, errors.New("vouchsafe.lease_interval is 0: nobody asks, and no lease ends")
	}
	return l, nil
}

// logLevel takes a document's level unless the command line has one.
func (s *Settings) logLevel(cmd commandLine, document string, t logTable) error {
	if t.Level == "" {
		return nil
	}
	level, err := parseLevel(strings.ToLower(t.Level))
	if err != nil {
		return fmt.Errorf("%s: log.level: %w", document, err)
	}
	if !cmd.levelSet {
		s.Agent.LogLevel = level
	}
	return nil
}

func attestationService(raw string, plain bool) (AttestationService, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https":
		return AttestationService{}, errors.New("token_configs.coco_as.url: want a URL of the form https://host[:port][/path]")
	case u.Scheme == "http" && !plain:
		return AttestationService{}, errors.New("token_configs.coco_as.url is http://; allow that with insecure_plain_http = true in [vouchsafe] of cdh.toml")
	}
	return AttestationService{URL: strings.TrimRight(raw, "/"), InsecurePlainHTTP: plain}, nil
}

// checkSocket takes unix://PATH and addresses of loopback: a service for the
// guest's own programs is for nobody outside of it.
func checkSocket(at string) error {
	if at == "" {
		return nil
	}
	if file, ok := strings.CutPrefix(at, "unix://"); ok {
		if !path.IsAbs(file) || path.Clean(file) != file {
			return fmt.Errorf("%.80q: want unix:// and a clean absolute path", at)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(at)
	n, perr := strconv.ParseUint(port, 10, 16)
	if ip := net.ParseIP(host); err != nil || perr != nil || n == 0 || ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%.80q: want unix://PATH or the address of a loopback interface with a port", at)
	}
	return nil
}

// parseCredentials reads cdh.kbs_resources: <uri>::<path>[,<uri>::<path>...].
func parseCredentials(text string) (all []Credential, err error) {
	for _, one := range strings.Split(text, ",") {
		uri, file, ok := strings.Cut(one, "::")
		if !ok {
			return nil, fmt.Errorf("%.80q: want <uri>::<path>", one)
		}
		all = append(all, Credential{uri, file})
	}
	return all, nil
}

// checkCredentials keeps what is written inside of one directory.
func checkCredentials(all []Credential) error {
	if len(all) > maxCredentials {
		return fmt.Errorf("credentials: %d, at most %d", len(all), maxCredentials)
	}
	for n, c := range all {
		below, ok := strings.CutPrefix(c.Path, CredentialDir+"/")
		parts := strings.Split(below, "/")
		if !ok || slices.ContainsFunc(parts, func(p string) bool { return p == "" || p == "." || p == ".." }) {
			return fmt.Errorf("credentials[%d]: path %.80q is not a clean path below %s", n, c.Path, CredentialDir)
		}
		if scheme, _, ok := strings.Cut(c.ResourceURI, "://"); !ok || scheme != "kbs" && !strings.HasPrefix(scheme, "kbs+") {
			return fmt.Errorf("credentials[%d]: resource_uri %.80q does not start with kbs://", n, c.ResourceURI)
		}
	}
	return nil
}
