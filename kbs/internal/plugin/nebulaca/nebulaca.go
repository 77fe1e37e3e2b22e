// Package nebulaca is the field's plugin nebula-ca (kbs-protocol 8): a
// certificate authority for Nebula overlay networks, which gives attested
// guests a key pair and a certificate for it.
//
// The field's broker runs Nebula's own program over files. Here certificates are
// made by Nebula's library, and an authority's private key is in no file: it
// lies with the tenant's other keys, sealed under the master key, and is opened
// for each certificate. A tenant has one authority at a time; when that has
// ended, and with it everything that it signed, the next request makes another.
//
// Which guest may have which name and address is for the resource policy,
// which sees the same query. What no policy can allow is beyond the authority's
// own limits, nor beyond those that the configuration has now.
package nebulaca

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Name of the plugin.
const Name = "nebula-ca"

// credential is the one service.
const credential = "credential"

// Ring is where authorities are: a keyring.Ring of one tenant.
type Ring interface {
	Get(ctx context.Context, name string) (secret.Bytes, error)
	LoadOrCreate(ctx context.Context, name string, create func() (secret.Bytes, error)) (secret.Bytes, error)
	List(ctx context.Context, start string) ([]string, error)
}

// Recorder is the tenant's audit log.
type Recorder interface {
	Append(ctx context.Context, e api.AuditEntry) (api.AuditEntry, error)
}

// Config joins what the plugin needs. All members are required, but for
// Settings.
type Config struct {
	Ring     Ring
	Audit    Recorder
	Settings Settings
	Now      func() time.Time
	Logger   *slog.Logger
}

// Plugin is one tenant's. It is safe for concurrent use.
type Plugin struct {
	Config
	limits limits
}

var _ plugin.Plugin = (*Plugin)(nil)

// New returns the plugin, and makes no authority yet. It fails for settings that
// Check complains about.
func New(c Config) (*Plugin, error) {
	l, bad := c.Settings.read()
	if len(bad) > 0 {
		return nil, fmt.Errorf("plugin %s: %s: %s", Name, bad[0].Key, bad[0].What)
	}
	return &Plugin{c, l}, nil
}

// NeedsAdmin implements plugin.Plugin: all of it is for guests.
func (p *Plugin) NeedsAdmin(_ context.Context, c plugin.Call) (bool, error) { return false, check(c) }

// Encrypts implements plugin.Plugin.
func (p *Plugin) Encrypts(_ context.Context, c plugin.Call) (bool, error) { return true, check(c) }

// check refuses what the plugin does not have.
func check(c plugin.Call) error {
	if len(c.Path) != 1 || c.Path[0] != credential {
		return fault.Newf(fault.NotFound, "plugin %s has %s alone", Name, credential)
	}
	if c.Method != http.MethodGet {
		return fault.Newf(fault.MethodNotAllowed, "plugin %s: %s has no %s", Name, credential, c.Method)
	}
	return nil
}

// Handle implements plugin.Plugin.
func (p *Plugin) Handle(ctx context.Context, c plugin.Call) (plugin.Answer, error) {
	if err := check(c); err != nil {
		return plugin.Answer{}, err
	}
	r, err := parse(c.Query)
	if err != nil {
		return plugin.Answer{}, fault.New(fault.InvalidRequest, err)
	}
	if err := p.limits.allow(r); err != nil {
		return plugin.Answer{}, fault.New(fault.Forbidden, err)
	}
	now := p.Now()
	a, err := p.authority(ctx, now)
	if err != nil {
		return plugin.Answer{}, err
	}
	defer a.key.Destroy()
	out, err := a.issue(r, now)
	if err != nil {
		return plugin.Answer{}, err
	}
	defer out.key.Destroy()
	return plugin.Answer{Body: out.body(), Details: out.details(r)}, nil
}

// authority returns the one that signs now, and makes it where there is none, or
// none that has not ended.
func (p *Plugin) authority(ctx context.Context, now time.Time) (authority, error) {
	names, err := p.Ring.List(ctx, Name+"/")
	if err != nil {
		return authority{}, err
	}
	number := 0
	if len(names) > 0 {
		last := names[len(names)-1]
		if number, err = strconv.Atoi(strings.TrimPrefix(last, Name+"/")); err != nil {
			return authority{}, fmt.Errorf("%s is no name of an authority: %w", last, err)
		}
		text, err := p.Ring.Get(ctx, last)
		if err != nil {
			return authority{}, err
		}
		a, err := open(text)
		if err != nil || now.Before(a.last()) {
			return a, err
		}
		a.key.Destroy()
	}
	// Of two who come at once, both get what the first one made.
	text, err := p.Ring.LoadOrCreate(ctx, fmt.Sprintf("%s/%06d", Name, number+1), func() (secret.Bytes, error) { return p.create(ctx, now) })
	if err != nil {
		return authority{}, err
	}
	return open(text)
}

// create makes an authority. Its entry comes first: an entry of one that was
// not kept is possible, an authority without an entry is not.
func (p *Plugin) create(ctx context.Context, now time.Time) (secret.Bytes, error) {
	a, err := generate(p.limits, now)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer a.key.Destroy()
	mark, err := a.crt.Fingerprint()
	if err != nil {
		return secret.Bytes{}, err
	}
	until := a.crt.NotAfter().UTC().Format(time.RFC3339)
	_, err = p.Audit.Append(ctx, api.AuditEntry{
		Kind: api.AuditNebulaCACreate, Decision: "change", Subject: "kbs", Object: Name + "/" + mark,
		Details: map[string]string{"name": a.crt.Name(), "expires": until},
	})
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("append audit entry: %w", err)
	}
	p.Logger.InfoContext(ctx, "a Nebula certificate authority was made", slog.String("event_id", "nebula_ca.create"),
		slog.String("fingerprint", mark), slog.String("expires", until))
	return a.text()
}
